//! Numbers as files have them where many are small: little-endian base 128, as in postcard.

/// Appends a number.
pub(crate) fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Takes a byte off the beginning.
#[inline]
pub(crate) fn byte(from: &mut &[u8]) -> Option<u8> {
    let (&first, rest) = from.split_first()?;
    *from = rest;
    Some(first)
}

/// Takes a number off the beginning; `None` if it is cut off, or has more than 64 bits.
#[inline]
pub(crate) fn take(from: &mut &[u8]) -> Option<u64> {
    // Most numbers are small.
    if let [first @ ..0x80, rest @ ..] = from {
        let first = *first;
        *from = rest;
        return Some(first.into());
    }
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let next = byte(from)?;
        if shift == 63 && next > 1 {
            return None;
        }
        number |= u64::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        let numbers = [0, 1, 127, 128, 300, u64::from(u32::MAX), 1 << 63, u64::MAX];
        let mut bytes = Vec::new();
        numbers.iter().for_each(|number| put(&mut bytes, *number));
        let mut from = &bytes[..];
        assert_eq!(numbers.map(|_| take(&mut from)), numbers.map(Some));
        assert_eq!((take(&mut from), byte(&mut from)), (None, None));
        assert_eq!(take(&mut &[0x80][..]), None, "cut off");
        assert_eq!(take(&mut &[[0xff; 9].as_slice(), &[2]].concat()[..]), None, "65 bits");
    }
}
