//! What kernels and modules are packed with, unpacked here: packages have them in gzip, xz, zstd,
//! lz4 or not at all.

use std::io::{self, ErrorKind, Read};

/// The most bytes that anything may unpack to: kernels proper have some 60 MB, modules far less.
const MOST: u64 = 512 << 20;
/// What one block of old lz4 files unpacks to at most (`lz4_Frame_format.md`, legacy frame).
const LZ4_BLOCK: usize = 8 << 20;
const LZ4_LEGACY: &[u8] = b"\x02\x21\x4c\x18";

/// Whether bytes begin as one of the packed forms does.
pub(crate) fn is_packed(bytes: &[u8]) -> bool {
    let magics: [&[u8]; 5] =
        [b"\x1f\x8b", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18", LZ4_LEGACY];
    magics.iter().any(|magic| bytes.starts_with(magic))
}

/// The bytes that were packed; what is not packed is returned as it is.
pub(crate) fn unpack(bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    match bytes.get(..4) {
        Some([0x1f, 0x8b, ..]) => all(flate2::read::MultiGzDecoder::new(&bytes[..])),
        Some([0xfd, b'7', b'z', b'X']) => all(lzma_rust2::XzReader::new(&bytes[..], true)),
        Some([0x28, 0xb5, 0x2f, 0xfd]) => all(zstd::stream::read::Decoder::new(&bytes[..])?),
        Some([0x04, 0x22, 0x4d, 0x18]) => all(lz4_flex::frame::FrameDecoder::new(&bytes[..])),
        Some(magic) if magic == LZ4_LEGACY => lz4_blocks(&bytes[4..]),
        _ => Ok(bytes),
    }
}

fn all(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    reader.take(MOST + 1).read_to_end(&mut out)?;
    if out.len() as u64 > MOST { Err(ErrorKind::FileTooLarge.into()) } else { Ok(out) }
}

/// The blocks of an old lz4 file: each with its length before it.
fn lz4_blocks(mut rest: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    while let Some((length, behind)) = rest.split_at_checked(4) {
        let length = length.try_into().map_or(0, u32::from_le_bytes) as usize;
        let block = behind.get(..length).ok_or(ErrorKind::UnexpectedEof)?;
        let unpacked = lz4_flex::block::decompress(block, LZ4_BLOCK);
        out.extend(unpacked.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?);
        if out.len() as u64 > MOST {
            return Err(ErrorKind::FileTooLarge.into());
        }
        rest = &behind[length..];
    }
    if rest.is_empty() { Ok(out) } else { Err(ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn every_form_unpacks_and_a_cut_one_does_not() {
        let plain: Vec<u8> = (0..100_000u32).flat_map(|it| (it / 7).to_le_bytes()).collect();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        let mut xz = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
        xz.write_all(&plain).unwrap();
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(&plain).unwrap();
        let block = lz4_flex::block::compress(&plain);
        let legacy = [LZ4_LEGACY, &(block.len() as u32).to_le_bytes(), &block].concat();
        let zstd = zstd::stream::encode_all(&plain[..], 1).unwrap();
        for packed in [gzip.finish().unwrap(), xz.finish().unwrap(), lz4.finish().unwrap(), legacy, zstd] {
            assert!(is_packed(&packed));
            assert_eq!(unpack(packed.clone()).unwrap(), plain);
            assert!(unpack(packed[..packed.len() / 2].to_vec()).is_err());
        }
        assert_eq!(unpack(b"\x7fELF".to_vec()).unwrap(), b"\x7fELF");
    }
}
