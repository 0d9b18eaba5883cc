//! A guest's times as text.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use filetree::Time;

/// The moment as the host's clock would have it; `None` if that cannot tell it.
pub fn moment(time: Time) -> Option<SystemTime> {
    let part = Duration::from_nanos(time.nanoseconds.into());
    let whole = Duration::from_secs(time.seconds.unsigned_abs());
    let start = if time.seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    start?.checked_add(part)
}

/// Seconds from 1970 to the first year that a date of four digits cannot tell.
const YEAR_10000: i64 = 253_402_300_800;

/// A time as RFC 3339 has it, or in seconds where that is no date.
pub fn text(time: Time) -> String {
    let date = moment(time).filter(|_| (0..YEAR_10000).contains(&time.seconds));
    date.map_or_else(
        || format!("{} s", time.seconds),
        |date| humantime::format_rfc3339_nanos(date).to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guests_times_need_be_no_dates() {
        let text = |seconds, nanoseconds| text(Time { seconds, nanoseconds });
        assert_eq!(text(0, 5), "1970-01-01T00:00:00.000000005Z");
        assert_eq!(text(-1, 0), "-1 s");
        assert_eq!(text(i64::MAX, 999_999_999), "9223372036854775807 s");
        assert_eq!(text(i64::MIN, 0), "-9223372036854775808 s");
    }
}
