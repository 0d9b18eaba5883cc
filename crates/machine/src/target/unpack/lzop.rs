//! The files of lzop: headers, blocks, checksums (as lzop 1.04 writes and reads them; all numbers
//! have their high byte first).

use std::io::{self, BufRead, ErrorKind, Read};

use super::input::Input;

pub(super) const MAGIC: &[u8] = b"\x89LZO\0\r\n\x1a\n";

/// The first version whose header has the version that is needed, a level and a long time.
const LONG_HEADER: u16 = 0x0940;
/// The largest block that lzop reads.
const MAX_BLOCK: usize = 64 << 20;
/// So many bytes a byte can unpack to at most: a run's length grows by 255 with each.
const MOST_EACH: usize = 256;

/// Flags: checksums of what was packed (`D`) and of what it was packed to (`C`), and what the
/// header has.
const ADLER_D: u32 = 0x1;
const ADLER_C: u32 = 0x2;
const EXTRA: u32 = 0x40;
const CRC_D: u32 = 0x100;
const CRC_C: u32 = 0x200;
const FILTER: u32 = 0x800;
const HEADER_CRC: u32 = 0x1000;

/// All files of an archive, one behind the other.
pub(super) struct Files<'a> {
    input: Input<'a>,
    /// The flags of the file that is read.
    flags: Option<u32>,
    block: Vec<u8>,
    /// How much of the block is done.
    done: usize,
}

impl<'a> Files<'a> {
    pub(super) const fn new(input: Input<'a>) -> Self {
        Self { input, flags: None, block: Vec::new(), done: 0 }
    }

    fn take(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let (taken, _) = self.input.rest.split_at_checked(count).ok_or(ErrorKind::UnexpectedEof)?;
        self.input.consume(count);
        Ok(taken)
    }

    fn number(&mut self) -> io::Result<u32> {
        Ok(self.take(4)?.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    /// The header of a file; its flags.
    fn header(&mut self) -> io::Result<u32> {
        let magic = self.take(MAGIC.len().min(self.input.rest.len()))?;
        if magic.len() < MAGIC.len() && MAGIC.starts_with(magic) {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if magic != MAGIC {
            return Err(wrong("what follows a file is none"));
        }
        let begin = self.input.rest;
        let version = u16::from_be_bytes(self.take(2)?.try_into().unwrap_or_default());
        self.take(if version < LONG_HEADER { 2 } else { 4 })?;
        if !(1..=3).contains(&self.take(1)?[0]) {
            return Err(wrong("a method that is not LZO1X"));
        }
        self.take(usize::from(version >= LONG_HEADER))?;
        let flags = self.number()?;
        if flags & FILTER != 0 {
            return Err(wrong("a filter"));
        }
        self.take(if version < LONG_HEADER { 8 } else { 12 })?;
        let name = self.take(1)?[0];
        self.take(name.into())?;
        let header = &begin[..begin.len() - self.input.rest.len()];
        let sum = if flags & HEADER_CRC == 0 { adler(header) } else { crc(header) };
        if self.number()? != sum {
            return Err(wrong("a checksum of a header"));
        }
        if flags & EXTRA != 0 {
            let size = self.number()? as usize;
            self.take(size)?;
            self.number()?;
        }
        Ok(flags)
    }

    /// The next block of a file, if there is one.
    fn next(&mut self, flags: u32) -> io::Result<bool> {
        let size = self.number()? as usize;
        if size == 0 {
            return Ok(false);
        }
        let packed = self.number()? as usize;
        let mut sum = |flag: u32| (flags & flag != 0).then(|| self.number()).transpose();
        let plain = (sum(ADLER_D)?, sum(CRC_D)?);
        // What did not shrink is there as it is.
        let (adler_c, crc_c) = if packed < size { (ADLER_C, CRC_C) } else { (0, 0) };
        let stored = (sum(adler_c)?, sum(crc_c)?);
        if size > MAX_BLOCK || packed > size || size > packed.saturating_mul(MOST_EACH) + MOST_EACH {
            return Err(wrong("a block of a size that it cannot have"));
        }
        let bytes = self.take(packed)?;
        check(bytes, stored)?;
        self.block.clear();
        if packed == size {
            self.block.extend_from_slice(bytes);
        } else {
            self.block.resize(size, 0);
            let unpacked = lzokay::decompress::decompress(bytes, &mut self.block).ok();
            if unpacked != Some(size) {
                return Err(wrong("a block"));
            }
        }
        check(&self.block, plain)?;
        self.done = 0;
        Ok(true)
    }
}

impl Read for Files<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.done == self.block.len() {
            let flags = match self.flags {
                Some(flags) => flags,
                None if self.input.rest.is_empty() => return Ok(0),
                None => self.header()?,
            };
            self.flags = self.next(flags)?.then_some(flags);
        }
        let rest = &self.block[self.done..];
        let count = rest.len().min(out.len());
        out[..count].copy_from_slice(&rest[..count]);
        self.done += count;
        Ok(count)
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("{what} is wrong or not read"))
}

/// Compares bytes with those checksums that there are.
fn check(bytes: &[u8], (a, c): (Option<u32>, Option<u32>)) -> io::Result<()> {
    let same = a.is_none_or(|sum| sum == adler(bytes)) && c.is_none_or(|sum| sum == crc(bytes));
    if same { Ok(()) } else { Err(wrong("a checksum of a block")) }
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// Adler-32 (RFC 1950 section 8.2).
fn adler(bytes: &[u8]) -> u32 {
    const BASE: u32 = 65521;
    let (mut a, mut b) = (1u32, 0u32);
    // So many sums do not overflow.
    for part in bytes.chunks(5552) {
        for byte in part {
            a += u32::from(*byte);
            b += a;
        }
        (a, b) = (a % BASE, b % BASE);
    }
    b << 16 | a
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    /// A file as lzop writes one: blocks of 256 KiB, those that do not shrink as they are.
    pub(in super::super) fn pack(bytes: &[u8]) -> Vec<u8> {
        let word = |number: u32| number.to_be_bytes();
        let mut header = vec![0x10, 0x40, 0x20, 0xa0, 0x09, 0x40, 1, 5];
        header.extend([word(ADLER_D | ADLER_C), word(0o100_644), word(0), word(0)].concat());
        header.push(0);
        let mut out = [MAGIC, &header, &word(adler(&header))].concat();
        for block in bytes.chunks(256 << 10) {
            let packed = lzokay::compress::compress(block).unwrap();
            out.extend([word(block.len() as u32), word(packed.len().min(block.len()) as u32)].concat());
            out.extend(word(adler(block)));
            if packed.len() < block.len() {
                out.extend(word(adler(&packed)));
                out.extend(packed);
            } else {
                out.extend(block);
            }
        }
        out.extend(word(0));
        out
    }

    fn unpacked(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let (done, mut out) = (AtomicU64::new(0), Vec::new());
        Files::new(Input { rest: bytes, done: &done }).read_to_end(&mut out).map(|_| out)
    }

    #[test]
    fn what_lzop_wrote_is_read() {
        // Two files of lzop 1.04, the second with --crc32.
        let hex = "894c5a4f000d0a1a0a104020a00940010503000009000081a46b0cc3790000000005742e747874529306\
            4b000000390000002e5d4514b500017768617420612067756573742077726f7465203248000f68617420\
            612067756573742077726f74650a11000000000000894c5a4f000d0a1a0a104020a0100101050300110c\
            000081a46b0cc37900000000008563d906000000390000002e6d4d0ac800017768617420612067756573\
            742077726f7465203248000f68617420612067756573742077726f74650a11000000000000";
        let digits = hex.as_bytes().chunks(2).map(|it| std::str::from_utf8(it).unwrap());
        let bytes: Vec<u8> = digits.map(|it| u8::from_str_radix(it, 16).unwrap()).collect();
        let line = b"what a guest wrote what a guest wrote what a guest wrote\n";
        assert_eq!(unpacked(&bytes).unwrap(), [&line[..], line].concat());
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 4;
            // The sums of what is a stream's own end need not be there.
            assert!(unpacked(&changed).is_err(), "{at}");
        }
    }

    #[test]
    fn a_block_cannot_unpack_to_more_than_its_bytes_allow() {
        let mut bomb = pack(&[7; 1000]);
        let size = MAGIC.len() + 8 + 16 + 1 + 4;
        bomb[size..size + 4].copy_from_slice(&(MAX_BLOCK as u32).to_be_bytes());
        assert_eq!(unpacked(&bomb).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
