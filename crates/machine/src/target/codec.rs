//! The compressions that a page of a dump may have.
//!
//! Each decoder writes into one page and never beyond it, so a bomb ends where the page does. A
//! page is whole or it is none: fewer bytes than a page are refused too. zlib and zstd frames have
//! or may have checksums, which are checked; LZO and raw Snappy have none, so that a flipped bit in
//! them can go unnoticed.

use miniz_oxide::inflate::decompress_slice_iter_to_slice;

use crate::memory::Page;

/// How a page is stored: the flags of a kdump's page descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Codec {
    /// As it is.
    Stored,
    /// RFC 1950.
    Zlib,
    /// LZO1X, without a header.
    Lzo,
    /// Raw Snappy, without frames.
    Snappy,
    /// RFC 8878.
    Zstd,
}

impl Codec {
    /// The codec of `DUMP_DH_COMPRESSED_*` flags, of which one at most is set; bits that say other
    /// things are ignored.
    pub(super) fn from_flags(flags: u32) -> Option<Self> {
        match flags & 0x27 {
            0 => Some(Self::Stored),
            1 => Some(Self::Zlib),
            2 => Some(Self::Lzo),
            4 => Some(Self::Snappy),
            0x20 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The page that `data` is; `None` if it is not exactly a page.
    pub(super) fn page(self, data: &[u8]) -> Option<Box<Page>> {
        let mut page = Box::new([0; 4096]);
        let size = match self {
            Self::Stored => return data.try_into().ok().map(|bytes: &Page| Box::new(*bytes)),
            Self::Zlib => {
                decompress_slice_iter_to_slice(&mut page[..], [data].into_iter(), true, false).ok()?
            }
            Self::Lzo => lzokay::decompress::decompress(data, &mut page[..]).ok()?,
            Self::Snappy => snap::raw::Decoder::new().decompress(data, &mut page[..]).ok()?,
            Self::Zstd => zstd::bulk::decompress_to_buffer(data, &mut page[..]).ok()?,
        };
        (size == page.len()).then_some(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(codec: Codec, bytes: &[u8]) -> Vec<u8> {
        match codec {
            Codec::Stored => bytes.to_vec(),
            Codec::Zlib => miniz_oxide::deflate::compress_to_vec_zlib(bytes, 1),
            Codec::Lzo => lzokay::compress::compress(bytes).unwrap(),
            Codec::Snappy => snap::raw::Encoder::new().compress_vec(bytes).unwrap(),
            Codec::Zstd => zstd::bulk::compress(bytes, 1).unwrap(),
        }
    }

    #[test]
    fn exactly_a_page_or_nothing() {
        let text: Vec<u8> = (0..4097u32).map(|i| (i / 7) as u8).collect();
        for codec in [Codec::Stored, Codec::Zlib, Codec::Lzo, Codec::Snappy, Codec::Zstd] {
            let whole = packed(codec, &text[..4096]);
            assert_eq!(codec.page(&whole).as_deref().map(|page| &page[..]), Some(&text[..4096]), "{codec:?}");
            assert_eq!(codec.page(&packed(codec, &text[..4095])), None, "{codec:?}: short");
            assert_eq!(codec.page(&packed(codec, &text)), None, "{codec:?}: long");
            for len in 0..whole.len() {
                assert_eq!(codec.page(&whole[..len]), None, "{codec:?}: cut at {len}");
            }
        }
        assert_eq!(Codec::from_flags(3), None);
        assert_eq!(Codec::from_flags(0x20), Some(Codec::Zstd));
    }

    #[test]
    fn bombs_end_at_the_page() {
        let bomb = vec![0; 8 << 20];
        for codec in [Codec::Zlib, Codec::Lzo, Codec::Snappy, Codec::Zstd] {
            assert_eq!(codec.page(&packed(codec, &bomb)), None, "{codec:?}");
        }
    }
}
