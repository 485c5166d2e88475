//! Times as text.

use std::time::{SystemTime, UNIX_EPOCH};

/// Shows a time in UTC as RFC 3339 has it, with microseconds: `2026-01-02T03:04:05.678901Z`.
///
/// A time before 1970 is shown as its beginning, and one after the year 9999 as that one's end: the format has no other.
pub fn rfc3339(time: SystemTime) -> String {
    const LAST: u64 = 253_402_300_799;
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, micros) = match since.as_secs() {
        seconds @ ..=LAST => (seconds, since.subsec_micros()),
        _ => (LAST, 999_999),
    };
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// Year, month and day of a day since 1970-01-01, in the Gregorian calendar.
fn date(days: u64) -> (u64, u64, u64) {
    // Counted from the first of March of the year 0, so that a leap day is the last day of its year. 400 years have always
    // the same number of days.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    // From March on, months of 31 and 30 days alternate twice in five: 153 days.
    let march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn shown(seconds: u64, micros: u64) -> String {
        rfc3339(UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_micros(micros))
    }

    #[test]
    fn known_times() {
        assert_eq!(shown(0, 0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(shown(1_767_323_045, 678_901), "2026-01-02T03:04:05.678901Z");
        assert_eq!(shown(951_782_400, 1), "2000-02-29T00:00:00.000001Z");
        assert_eq!(shown(4_107_542_399, 999_999), "2100-02-28T23:59:59.999999Z");
        assert_eq!(shown(4_107_542_400, 0), "2100-03-01T00:00:00.000000Z");
        assert_eq!(shown(253_402_300_800, 0), "9999-12-31T23:59:59.999999Z");
        assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_secs(1)), shown(0, 0));
    }

    #[test]
    fn every_day_of_four_centuries_follows_the_one_before() {
        let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let mut wanted = (1970, 1, 1);
        for day in 0..146_097 {
            assert_eq!(date(day), wanted);
            let (year, month, day) = wanted;
            let last = match month {
                2 => 28 + u64::from(leap(year)),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            wanted = match (day == last, month) {
                (false, _) => (year, month, day + 1),
                (true, 12) => (year + 1, 1, 1),
                (true, _) => (year, month + 1, 1),
            };
        }
    }
}
