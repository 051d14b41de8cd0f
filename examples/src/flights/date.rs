//! Days of the Gregorian calendar, as numbers that compare and as text.

use std::fmt;

use cutwater::Timestamp;
use serde::{Deserialize, Serialize};

const MS_PER_DAY: i64 = 86_400_000;

/// A day, counted from 1970-01-01.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Date(i32);

impl Date {
    /// The day, if there is one: years 1 to 9999.
    pub fn new(year: i32, month: u32, day: u32) -> Option<Self> {
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            _ => return None,
        };
        if !(1..=9999).contains(&year) || !(1..=days).contains(&day) {
            return None;
        }
        // Years begin in March here, so that the day that comes and goes is the last one.
        let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
        let day_of_year = (153 * month + 2) / 5 + day - 1;
        let days = year * 365 + year / 4 - year / 100 + year / 400 + i32::try_from(day_of_year).ok()?;
        Some(Self(days - 719_468)) // from 0000-03-01 to 1970-01-01
    }

    /// Midnight at its beginning, as if it were UTC: local times only have to be in order.
    pub fn timestamp(self) -> Timestamp {
        Timestamp(i64::from(self.0) * MS_PER_DAY)
    }

    /// The day in which a time lies; times beyond all days give the nearest.
    pub fn of(time: Timestamp) -> Self {
        let days = time.0.div_euclid(MS_PER_DAY);
        Self(i32::try_from(days).unwrap_or(if days < 0 { i32::MIN } else { i32::MAX }))
    }
}

impl fmt::Display for Date {
    /// As `2013-01-31`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = i64::from(self.0) + 719_468;
        let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097)); // 400 years each
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (year * 365 + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        write!(f, "{:04}-{month:02}-{day:02}", era * 400 + year + next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_their_number_and_text() {
        let cases = [
            ("the first of all", 1970, 1, 1, 0, "1970-01-01"),
            ("the day before", 1969, 12, 31, -1, "1969-12-31"),
            ("the first of the data", 2013, 1, 1, 15_706, "2013-01-01"),
            ("the last of the data", 2013, 12, 31, 16_070, "2013-12-31"),
            ("a leap day", 2024, 2, 29, 19_782, "2024-02-29"),
            ("the leap day of a 400th year", 2000, 2, 29, 11_016, "2000-02-29"),
            ("after February of a 100th year", 1900, 3, 1, -25_508, "1900-03-01"),
        ];
        for (name, year, month, day, number, text) in cases {
            let date = Date::new(year, month, day).unwrap();
            assert_eq!((date.0, date.to_string().as_str()), (number, text), "{name}");
            assert_eq!(date.timestamp(), Timestamp(i64::from(number) * MS_PER_DAY), "{name}");
            assert_eq!(Date::of(date.timestamp()), date, "{name}");
            assert_eq!(Date::of(Timestamp(date.timestamp().0 - 1)), Date(number - 1), "{name}: a ms before");
        }
    }

    #[test]
    fn each_day_follows_the_one_before() {
        let mut last = Date::new(1, 1, 1).unwrap();
        for (year, month, day) in
            (1..=9999).flat_map(|year| (1..=12).flat_map(move |month| (1..=31).map(move |day| (year, month, day))))
        {
            let Some(date) = Date::new(year, month, day) else { continue };
            assert!(date.0 == last.0 + 1 || (year, month, day) == (1, 1, 1), "{date} follows {last}");
            // Texts are slow to make; the month ends are where they could go wrong.
            if day == 1 || day >= 28 {
                assert_eq!(date.to_string(), format!("{year:04}-{month:02}-{day:02}"));
            }
            last = date;
        }
        assert_eq!(last.0, 2_932_896);
    }

    #[test]
    fn what_is_no_day_is_refused() {
        let cases = [(2013, 0, 1), (2013, 13, 1), (2013, 1, 0), (2013, 4, 31), (2013, 2, 29), (1900, 2, 29), (0, 1, 1)];
        for (year, month, day) in cases {
            assert_eq!(Date::new(year, month, day), None, "{year}-{month}-{day}");
        }
    }
}
