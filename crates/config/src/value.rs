//! The grammar of values, as measured on Flink 2.3.0. Each parser takes the text as written.

use std::time::Duration;

#[cfg(test)]
mod tests;

/// What a duration may look like.
pub(crate) const DURATION: &str = "give a whole number and a unit (ns, µs, ms, s, min, h, d; without one it is ms), as in `10 s`, or ISO-8601, as in `PT10M`";

/// The duration in the text: a whole number and a unit, without one milliseconds; or ISO-8601. `None` if it is
/// neither or too large.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if !text.starts_with(|first: char| first.is_ascii_digit()) {
        return iso_duration(text);
    }
    let (number, unit) = number_and_unit(text)?;
    // The names are compared in lower case, as Flink does.
    let nanos_of_unit: u128 = match unit.to_lowercase().as_str() {
        "ns" | "nano" | "nanos" | "nanosecond" | "nanoseconds" => 1,
        "µs" | "micro" | "micros" | "microsecond" | "microseconds" => 1_000,
        "" | "ms" | "milli" | "millis" | "millisecond" | "milliseconds" => 1_000_000,
        "s" | "sec" | "secs" | "second" | "seconds" => 1_000_000_000,
        "m" | "min" | "minute" | "minutes" => 60 * 1_000_000_000,
        "h" | "hour" | "hours" => 3_600 * 1_000_000_000,
        "d" | "day" | "days" => 86_400 * 1_000_000_000,
        _ => return None,
    };
    from_nanos(u128::from(number) * nanos_of_unit)
}

/// The bytes in a text as the keys of sizes take it: a whole number and a binary unit (b, kb, mb, gb, tb), without one bytes. `None`
/// if it is not that or too large.
///
/// ```
/// assert_eq!(cutwater_config::size_in_bytes("20 gb"), Some(20 << 30));
/// assert_eq!(cutwater_config::size_in_bytes("1.5 gb"), None);
/// ```
#[must_use]
pub fn memory(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text.trim())?;
    let factor: u64 = match unit.to_lowercase().as_str() {
        "" | "b" | "bytes" => 1,
        "k" | "kb" | "kibibytes" => 1 << 10,
        "m" | "mb" | "mebibytes" => 1 << 20,
        "g" | "gb" | "gibibytes" => 1 << 30,
        "t" | "tb" | "tebibytes" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor).filter(|bytes| i64::try_from(*bytes).is_ok())
}

/// `true` or `false` in any case, nothing else.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// A decimal whole number of 32 bits, signed.
pub(crate) fn int(text: &str) -> Option<i32> {
    text.trim().parse().ok()
}

/// A decimal number that is finite.
pub(crate) fn double(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

/// A duration so that [`duration`] reads the same one, in the largest unit without fractions.
pub(crate) fn write_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let units = [
        (86_400 * 1_000_000_000, "d"),
        (3_600 * 1_000_000_000, "h"),
        (60 * 1_000_000_000, "min"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1_000, "µs"),
    ];
    let unit = units.into_iter().find(|(size, _)| nanos > 0 && nanos.is_multiple_of(*size));
    let (size, name) = unit.unwrap_or(if nanos == 0 { (1, "ms") } else { (1, "ns") });
    format!("{} {name}", nanos / size)
}

/// The digits at the start as a Java `long`, and the rest without the space between.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|char: char| !char.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..end].parse().ok().filter(|number| i64::try_from(*number).is_ok())?;
    Some((number, text[end..].trim()))
}

/// Java's limit: as many seconds as fit a `long`.
fn from_nanos(nanos: u128) -> Option<Duration> {
    let seconds = i64::try_from(nanos / 1_000_000_000).ok()?;
    let rest = u32::try_from(nanos % 1_000_000_000).expect("below a billion");
    Some(Duration::new(u64::try_from(seconds).ok()?, rest))
}

/// `PnDTnHnMn.nS` in any case: each part at most once, in this order, at least one; a fraction in the seconds only.
/// Parts with a sign, which Java's reader knows, would be negative or confusing: refused.
fn iso_duration(text: &str) -> Option<Duration> {
    let upper = text.to_ascii_uppercase();
    let (days, time) = match upper.strip_prefix('P')?.split_once('T') {
        Some((_, "")) => return None, // a T promises a time
        Some((days, time)) => (days, time),
        None => (upper.strip_prefix('P')?, ""),
    };
    if days.is_empty() && time.is_empty() {
        return None;
    }
    let mut nanos = 0_u128;
    if !days.is_empty() {
        nanos += u128::from(whole(days.strip_suffix('D')?)?) * 86_400 * 1_000_000_000;
    }
    let mut rest = time;
    for (unit, size) in [('H', 3_600_u128 * 1_000_000_000), ('M', 60 * 1_000_000_000)] {
        if let Some((part, after)) = rest.split_once(unit) {
            nanos += u128::from(whole(part)?) * size;
            rest = after;
        }
    }
    if !rest.is_empty() {
        nanos += seconds_with_fraction(rest.strip_suffix('S')?)?;
    }
    from_nanos(nanos)
}

fn seconds_with_fraction(text: &str) -> Option<u128> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 || !fraction.chars().all(|char| char.is_ascii_digit()) {
        return None;
    }
    let nanos: u128 = format!("{fraction:0<9}").parse().ok()?;
    Some(u128::from(whole(seconds)?) * 1_000_000_000 + nanos)
}

fn whole(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.chars().all(|char| char.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|number| i64::try_from(*number).is_ok())
}
