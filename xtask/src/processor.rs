//! How much of the processors' time other programs took.
//!
//! On a machine that others use, too, only that is a program's own.

use crate::outcome::Failure;

/// Milliseconds of a tick: Linux tells programs of hundredths of a second (`USER_HZ`).
pub const TICK_MS: f64 = 10.0;

/// Ticks that processors have given processes that this one has waited for.
pub fn children() -> Result<u64, Failure> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    // Behind the name: the state is the third field, the two that are wanted are the 16th and 17th.
    let (_, fields) = text.rsplit_once(')').ok_or("no name in /proc/self/stat")?;
    let ticks = fields.split_whitespace().skip(13).take(2).map(str::parse::<u64>);
    Ok(ticks.sum::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_can_be_read() {
        assert!(super::children().is_ok());
    }
}
