use proptest::prelude::*;

use super::*;

#[test]
fn durations_that_are_accepted() {
    let nanos = ["ns", "nano", "nanos", "nanosecond", "nanoseconds"];
    let micros = ["µs", "micro", "micros", "microsecond", "microseconds"];
    let millis = ["", "ms", "milli", "millis", "millisecond", "milliseconds"];
    let seconds = ["s", "sec", "secs", "second", "seconds"];
    let minutes = ["m", "min", "minute", "minutes"];
    let hours = ["h", "hour", "hours"];
    let days = ["d", "day", "days"];
    let units: [(&[&str], u64); 7] = [
        (&nanos, 1),
        (&micros, 1_000),
        (&millis, 1_000_000),
        (&seconds, 1_000_000_000),
        (&minutes, 60_000_000_000),
        (&hours, 3_600_000_000_000),
        (&days, 86_400_000_000_000),
    ];
    for (names, size) in units {
        for name in names {
            let expected = Some(Duration::from_nanos(3 * size));
            for text in [format!("3{name}"), format!("3 {name}"), format!("  3   {name} ")] {
                assert_eq!(duration(&text), expected, "`{text}`");
            }
            if name.is_ascii() {
                let text = format!("3 {}", name.to_uppercase());
                assert_eq!(duration(&text), expected, "`{text}`");
            }
        }
    }
    let cases = [
        ("0", Duration::ZERO),
        ("1000", Duration::from_secs(1)),
        ("007 s", Duration::from_secs(7)),
        ("PT10M", Duration::from_secs(600)),
        ("pt10m", Duration::from_secs(600)),
        ("P1DT2H3M4.5S", Duration::from_millis(93_784_500)),
        ("P2D", Duration::from_secs(172_800)),
        ("PT0.000000001S", Duration::from_nanos(1)),
        ("PT0S", Duration::ZERO),
        ("9223372036854775807 s", Duration::from_secs(i64::MAX as u64)),
    ];
    for (text, expected) in cases {
        assert_eq!(duration(text), Some(expected), "`{text}`");
    }
}

#[test]
fn durations_that_are_refused() {
    let cases = [
        ("", "nothing"),
        ("   ", "nothing but space"),
        ("s", "no number"),
        ("1.5 s", "a fraction"),
        (".5 s", "a fraction without its number"),
        ("-1 s", "negative"),
        ("+1 s", "a sign"),
        ("1h 30m", "two parts"),
        ("1 h30", "two parts"),
        ("10 msec", "not a name of Flink's"),
        ("10 mins", "not a name of Flink's"),
        ("10 us", "not a name of Flink's"),
        ("10 w", "no such unit"),
        ("1_000 s", "digits with a mark"),
        ("٣ s", "digits of another script"),
        ("9223372036854775808", "a number beyond 63 bits"),
        ("9223372036854775807 d", "more seconds than fit 63 bits"),
        ("99999999999999999999999999 s", "a number beyond 64 bits"),
        ("P", "ISO without a part"),
        ("PT", "ISO without a part"),
        ("P1DT", "a T without a time"),
        ("PT1M1H", "parts in the wrong order"),
        ("PT1H1H", "a part twice"),
        ("PT1.5M", "a fraction of a minute"),
        ("PT1.0000000001S", "finer than a nanosecond"),
        ("PT.5S", "a fraction without its number"),
        ("PT-1S", "negative"),
        ("-PT1S", "negative"),
        ("P1M", "months have no length"),
        ("P1Y", "years have no length"),
        ("T1S", "no P"),
        ("PT1", "no unit"),
        ("P9223372036854775807D", "overflow"),
    ];
    for (text, why) in cases {
        assert_eq!(duration(text), None, "`{text}`: {why}");
    }
}

#[test]
fn memory_sizes() {
    let units: [(&[&str], u64); 5] = [
        (&["", "b", "bytes"], 1),
        (&["k", "kb", "kibibytes"], 1024),
        (&["m", "mb", "mebibytes"], 1024 * 1024),
        (&["g", "gb", "gibibytes"], 1024 * 1024 * 1024),
        (&["t", "tb", "tebibytes"], 1024 * 1024 * 1024 * 1024),
    ];
    for (names, size) in units {
        for name in names {
            for text in [format!("5{name}"), format!("5 {name}"), format!("5 {}", name.to_uppercase())] {
                assert_eq!(memory(&text), Some(5 * size), "`{text}`");
            }
        }
    }
    for refused in ["", "kb", "5 MiB", "5 kib", "1.5 mb", "-1", "5 p", "8388608 tb", "9223372036854775808"] {
        assert_eq!(memory(refused), None, "`{refused}`");
    }
    assert_eq!(memory("8388607 tb"), Some(8_388_607 << 40));
}

#[test]
fn booleans_are_true_and_false_and_nothing_else() {
    for (text, expected) in [("true", true), ("TRUE", true), ("tRuE", true), ("false", false), (" False ", false)] {
        assert_eq!(boolean(text), Some(expected), "`{text}`");
    }
    for refused in ["", "yes", "no", "on", "off", "1", "0", "t", "y"] {
        assert_eq!(boolean(refused), None, "`{refused}`");
    }
}

#[test]
fn numbers() {
    for (text, expected) in [("0", 0), ("-1", -1), ("2147483647", i32::MAX), (" 7 ", 7)] {
        assert_eq!(int(text), Some(expected), "`{text}`");
    }
    for refused in ["", "2147483648", "1.0", "1e3", "0x10", "1_000", "one"] {
        assert_eq!(int(refused), None, "`{refused}`");
    }
    for (text, expected) in [("1.5", 1.5), ("2", 2.0), ("1e-1", 0.1), ("-3", -3.0)] {
        assert_eq!(double(text), Some(expected), "`{text}`");
    }
    for refused in ["", "NaN", "inf", "1e999", "1,5", "half"] {
        assert_eq!(double(refused), None, "`{refused}`");
    }
}

proptest! {
    #[test]
    fn a_written_duration_reads_the_same(seconds in 0_u64..=i64::MAX as u64 / 1_000_000_000, nanos in 0_u32..1_000_000_000) {
        for given in [Duration::new(seconds, nanos), Duration::from_secs(seconds), Duration::from_nanos(u64::from(nanos))] {
            prop_assert_eq!(duration(&write_duration(given)), Some(given));
        }
    }

    #[test]
    fn no_text_makes_a_reader_panic(text in "\\PC{0,20}", digits in "[0-9PTHMSDpt. µ-]{0,24}") {
        for text in [text, digits] {
            let _ = (duration(&text), memory(&text), boolean(&text), int(&text), double(&text));
        }
    }
}
