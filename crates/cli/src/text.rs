//! Numbers and tables as people read them.

use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// The widest line, but for paths and names that are longer by themselves.
const WIDTH: u16 = 80;

/// Text from a file without what would steer the terminal.
pub(crate) fn safe(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// `1.4 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = units[0];
    for next in &units[1..] {
        if value < 1023.95 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// `850 µs`, `12.3 ms`, `1.2 s`, `2 min 3 s`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match duration {
        d if d.is_zero() => "0".to_owned(),
        d if d < Duration::from_millis(1) => format!("{} µs", d.as_micros()),
        d if d < Duration::from_secs(1) => format!("{:.1} ms", seconds * 1e3),
        d if d < Duration::from_secs(60) => format!("{seconds:.1} s"),
        d => format!("{} min {} s", d.as_secs() / 60, d.as_secs() % 60),
    }
}

/// `2026-03-29 13:04:05`, in UTC; `-` for 0, which is no time.
pub(crate) fn time(unix_ms: u64) -> String {
    let time = i64::try_from(unix_ms).ok().filter(|ms| *ms != 0);
    let time = time.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| "-".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// `1 file`, `2 files`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// A table without lines, the same on a terminal and in a pipe. Columns whose title begins with `>` go to the right.
pub(crate) fn table(indent: usize, titles: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_width(WIDTH - u16::try_from(indent).unwrap_or(0));
    table.set_header(titles.iter().map(|title| title.trim_start_matches('>')));
    for row in rows {
        table.add_row(row.iter().map(|cell| safe(cell)));
    }
    for (place, (column, title)) in table.column_iter_mut().zip(titles).enumerate() {
        column.set_padding((0, if place + 1 < titles.len() { 2 } else { 0 }));
        if title.starts_with('>') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let indent = " ".repeat(indent);
    table.lines().map(|line| format!("{indent}{line}").trim_end().to_owned() + "\n").collect()
}

/// The text in lines that fit, broken at spaces; the first line after `first`, the others after as many spaces.
pub(crate) fn wrap(first: &str, text: &str) -> String {
    let indent = first.chars().count();
    let mut out = first.to_owned();
    let mut at = indent;
    for (place, word) in safe(text).split(' ').enumerate() {
        let length = word.chars().count();
        if place > 0 && at + 1 + length > usize::from(WIDTH) {
            out += &format!("\n{}", " ".repeat(indent));
            at = indent;
        } else if place > 0 {
            out.push(' ');
            at += 1;
        }
        out += word;
        at += length;
    }
    out + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_durations_and_times_are_short() {
        let sizes = [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_468_006, "1.4 MiB"), (1 << 30, "1.0 GiB")];
        for (bytes, expected) in sizes {
            assert_eq!(size(bytes), expected);
        }
        assert_eq!((size((1 << 20) - 1).as_str(), size(u64::MAX).as_str()), ("1.0 MiB", "16.0 EiB"));
        let durations =
            [(0, "0"), (850, "850 µs"), (12_340, "12.3 ms"), (1_200_000, "1.2 s"), (123_000_000, "2 min 3 s")];
        for (micros, expected) in durations {
            assert_eq!(duration(Duration::from_micros(micros)), expected);
        }
        let times = [(0, "-"), (1_774_789_445_678, "2026-03-29 13:04:05"), (u64::MAX, "-")];
        for (ms, expected) in times {
            assert_eq!(time(ms), expected);
        }
    }

    #[test]
    fn long_text_is_wrapped_and_nothing_steers_the_terminal() {
        let words = "twelve chars ".repeat(20);
        for line in wrap("    value: ", words.trim_end()).lines() {
            assert!(line.chars().count() <= 80 && (line.starts_with("    value: ") || line.starts_with("           ")));
        }
        assert_eq!(safe("a\u{1b}[31mb\n"), "a\u{fffd}[31mb\u{fffd}");
        let wide = table(2, &["A", ">B"], vec![vec!["word ".repeat(40), "7".to_owned()]]);
        assert!(wide.lines().all(|line| line.chars().count() <= 80), "{wide}");
    }
}
