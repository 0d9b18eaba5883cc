//! The frames of an lz4 file.
//!
//! The decoder does not tell a frame that ends from one that is cut off between two blocks: where a
//! frame ends is looked up here (`lz4_Frame_format.md` of the lz4 project).

use std::io::{self, BufRead, ErrorKind, Read};

use lz4_flex::frame::FrameDecoder;

use super::input::Input;

pub(super) const MAGIC: &[u8] = b"\x04\x22\x4d\x18";

/// All frames of a file.
pub(super) struct Frames<'a> {
    input: Input<'a>,
    current: Option<Frame<'a>>,
}

struct Frame<'a> {
    decoder: FrameDecoder<&'a [u8]>,
    /// Bytes with the end mark, and whether that is there.
    len: usize,
    whole: bool,
}

impl<'a> Frames<'a> {
    pub(super) fn new(input: Input<'a>) -> Self {
        Self { input, current: None }
    }
}

impl Read for Frames<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(frame) = &mut self.current else {
                let bytes = self.input.rest;
                if bytes.is_empty() {
                    return Ok(0);
                }
                let (len, whole) = extent(bytes).ok_or(ErrorKind::InvalidData)?;
                let decoder = FrameDecoder::new(&bytes[..len]);
                self.current = Some(Frame { decoder, len, whole });
                continue;
            };
            match frame.decoder.read(out)? {
                0 if !frame.whole => return Err(ErrorKind::UnexpectedEof.into()),
                0 => {
                    self.input.consume(frame.len);
                    self.current = None;
                }
                read => return Ok(read),
            }
        }
    }
}

/// How many bytes the frame has that they begin with, and whether all of them are there.
fn extent(bytes: &[u8]) -> Option<(usize, bool)> {
    let cut = Some((bytes.len(), false));
    if !bytes.starts_with(&MAGIC[..bytes.len().min(MAGIC.len())]) {
        return None;
    }
    let Some(&flags) = bytes.get(4) else { return cut };
    let has = |bit: u32| usize::from(flags >> bit & 1);
    // The magic, flags, block size, content's size, dictionary, and their checksum.
    let mut at = 4 + 2 + 8 * has(3) + 4 * has(0) + 1;
    loop {
        let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk()) else { return cut };
        let size = u32::from_le_bytes(*word) & 0x7fff_ffff;
        at += 4;
        if size == 0 {
            at += 4 * has(2);
            return if at <= bytes.len() { Some((at, true)) } else { cut };
        }
        at = at.saturating_add(size as usize + 4 * has(4));
    }
}
