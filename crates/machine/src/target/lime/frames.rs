//! The Snappy framing format, as far as finding and decoding single frames needs it.
//!
//! A stream is an identifier and chunks: a byte that says what it is, three bytes of length, then
//! for data a checksum and at most 64 KiB of content, compressed or not (framing_format.txt of the
//! Snappy project). Frames are independent, so that one page costs one frame. The checksum is
//! checked by the `snap` crate, which gets one frame at a time.

use std::io::Read;

/// Identifies a stream; it may come again.
const IDENTIFIER: &[u8] = b"\xff\x06\0\0sNaPpY";
/// Most bytes of content in one frame.
const MAX_CONTENT: u64 = 1 << 16;
/// Most bytes a frame takes: Snappy may grow what it cannot compress by a sixth and some.
const MAX_FRAME: usize = 4 + (32 + (1 << 16) + (1 << 16) / 6);

/// One frame with content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Frame {
    /// Place of the frame, its chunk header included.
    pub(super) at: usize,
    /// Bytes of the frame with its chunk header.
    pub(super) len: usize,
    /// Bytes of content that it states, from 1 to 64 KiB.
    pub(super) content: u64,
}

/// The frames of one stream.
pub(super) struct Frames<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Frames<'a> {
    /// The frames of the stream that begins at `at`; `None` if none begins there.
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Option<Self> {
        bytes.get(at..)?.starts_with(IDENTIFIER).then_some(Self { bytes, at: at + IDENTIFIER.len() })
    }

    /// Where the next chunk begins.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// The next frame with content; `None` if what comes is none.
    pub(super) fn next(&mut self) -> Option<Frame> {
        loop {
            let at = self.at;
            let &[kind, a, b, c] = self.bytes.get(at..at.checked_add(4)?)? else { return None };
            let len = u32::from_le_bytes([a, b, c, 0]) as usize;
            let body = self.bytes.get(at + 4..(at + 4).checked_add(len)?)?;
            self.at = at + 4 + len;
            let content = match kind {
                0x00 => content_size(body.get(4..)?)?,
                0x01 => len.checked_sub(4)? as u64,
                0xff if body == &IDENTIFIER[4..] => continue,
                0x80..=0xfe => continue,
                _ => return None,
            };
            if content > MAX_CONTENT || len > MAX_FRAME {
                return None;
            }
            if content != 0 {
                return Some(Frame { at, len: 4 + len, content });
            }
        }
    }
}

/// The size that compressed data states: seven bits in each byte, the lowest first.
fn content_size(data: &[u8]) -> Option<u64> {
    let mut size = 0;
    for (i, byte) in data.iter().take(4).enumerate() {
        size |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some(size);
        }
    }
    None
}

/// The content of a frame; `None` if it is damaged.
pub(super) fn decode(bytes: &[u8], frame: Frame) -> Option<Box<[u8]>> {
    let data = bytes.get(frame.at..frame.at.checked_add(frame.len)?)?;
    let mut content = vec![0; usize::try_from(frame.content).ok()?].into_boxed_slice();
    let mut decoder = snap::read::FrameDecoder::new(IDENTIFIER.chain(data));
    decoder.read_exact(&mut content).ok()?;
    Some(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn stream(content: &[u8]) -> Vec<u8> {
        let mut encoder = snap::write::FrameEncoder::new(Vec::new());
        encoder.write_all(content).unwrap();
        encoder.into_inner().unwrap()
    }

    /// Bytes of which every other frame cannot be compressed.
    fn content() -> Vec<u8> {
        let mut state = 1u32;
        (0..200_000u32)
            .map(|i| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if i >> 16 & 1 == 0 { (i / 100) as u8 } else { (state >> 24) as u8 }
            })
            .collect()
    }

    #[test]
    fn frames_are_found_and_decoded_one_by_one() {
        let content = content();
        let mut bytes = stream(&content);
        // Padding and another identifier between frames.
        bytes.splice(10..10, [&[0xfe, 3, 0, 0, 1, 2, 3][..], IDENTIFIER].concat());
        let mut frames = Frames::new(&bytes, 0).unwrap();
        let mut all = Vec::new();
        while let Some(frame) = frames.next() {
            let part = decode(&bytes, frame).unwrap();
            assert_eq!(part.len() as u64, frame.content);
            all.extend(part);
        }
        assert!(all == content);
        assert_eq!(frames.position(), bytes.len());
        assert!(Frames::new(&bytes, 1).is_none());
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let content = content();
        let whole = stream(&content[..3000]);
        for bit in 10 * 8..whole.len() * 8 {
            let mut bytes = whole.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let mut frames = Frames::new(&bytes, 0).unwrap();
            if let Some(frame) = frames.next()
                && let Some(part) = decode(&bytes, frame)
            {
                assert_eq!(part[..], content[..3000], "bit {bit}");
            }
        }
    }

    #[test]
    fn content_of_impossible_size_is_no_frame() {
        let claim = |size: &[u8]| {
            let body = [&[0; 4], size].concat();
            let bytes = [IDENTIFIER, &[0, body.len() as u8, 0, 0], &body].concat();
            Frames::new(&bytes, 0).unwrap().next()
        };
        assert!(claim(&[1, 0, b'x']).is_some());
        assert_eq!(claim(&[0x81, 0x80, 4]), None, "64 KiB and one");
        assert_eq!(claim(&[0xff; 5]), None);
        assert_eq!(claim(&[]), None);
    }
}
