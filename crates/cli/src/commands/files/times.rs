//! A guest's times as text.

use filetree::Time;

/// Seconds from 1970 to the first year that a date of four digits cannot tell.
const YEAR_10000: i64 = 253_402_300_800;

/// A time as RFC 3339 has it, or in seconds where that is no date.
pub fn text(time: Time) -> String {
    let date = time.on_clock().filter(|_| (0..YEAR_10000).contains(&time.seconds));
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
