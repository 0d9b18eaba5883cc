//! Every compression: whole, cut off, too much.

use super::*;

/// Text, zeros, text.
fn content() -> Vec<u8> {
    let text = |n: u32| (0..n).map(|i| ((i / 5) ^ (i / 1031)) as u8);
    text(100_000).chain(std::iter::repeat_n(0, 1 << 20)).chain(text(70_000)).collect()
}

fn packed(packing: Packing, bytes: &[u8]) -> Vec<u8> {
    let written = match packing {
        Packing::Gzip => {
            let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            out.write_all(bytes).and_then(|()| out.finish())
        }
        Packing::Bzip2 => {
            let mut out = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
            out.write_all(bytes).and_then(|()| out.finish())
        }
        Packing::Lzop => Ok(lzop::tests::pack(bytes)),
        Packing::Zstd => zstd::encode_all(bytes, 1),
        Packing::Xz => {
            let options = lzma_rust2::XzOptions::with_preset(1);
            let mut out = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
            out.write_all(bytes).and_then(|()| out.finish())
        }
        Packing::Lz4 => {
            let mut out = lz4_flex::frame::FrameEncoder::new(Vec::new());
            out.write_all(bytes).map(|()| out.finish().unwrap())
        }
    };
    written.unwrap()
}

const ALL: [Packing; 6] =
    [Packing::Gzip, Packing::Bzip2, Packing::Zstd, Packing::Xz, Packing::Lz4, Packing::Lzop];

#[test]
fn all_frames_are_unpacked_and_a_missing_end_is_noticed() {
    let content = content();
    for packing in ALL {
        let one = packed(packing, &content);
        assert_eq!(Packing::of(&one), Some(packing));
        assert!(to_memory(&one, packing, false).unwrap() == content, "{packing:?}");
        let two = [&one[..], &packed(packing, b"more")].concat();
        let both = to_memory(&two, packing, false).unwrap();
        assert!(both == [&content[..], b"more"].concat(), "{packing:?}: two frames");
        for cut in [one.len() - 1, one.len() - 4, one.len() - 9, one.len() / 2, 7] {
            let error = to_memory(&one[..cut], packing, false).unwrap_err();
            assert!(matches!(error, UnpackError::Cut(_)), "{packing:?} cut at {cut}: {error}");
            let there = to_memory(&one[..cut], packing, true).unwrap();
            assert!(content.starts_with(&there), "{packing:?} cut at {cut}");
        }
    }
}

#[test]
fn lz4_cut_between_two_blocks_is_cut() {
    let whole = packed(Packing::Lz4, &content());
    let mut at = 7;
    while at < whole.len() - 4 {
        let error = to_memory(&whole[..at], Packing::Lz4, false).unwrap_err();
        assert!(matches!(error, UnpackError::Cut(_)), "{at}: {error}");
        at += 4 + (u32::from_le_bytes(*whole[at..].first_chunk().unwrap()) & 0x7fff_ffff) as usize;
    }
}

#[test]
fn bombs_end_at_the_limit() {
    let bomb = vec![0; 80 << 20];
    for packing in ALL {
        let error = to_memory(&packed(packing, &bomb), packing, false).unwrap_err();
        assert!(matches!(error, UnpackError::TooMuch { .. }), "{packing:?}: {error}");
    }
}

#[test]
fn zeros_take_no_room_in_the_file() {
    use std::os::unix::fs::MetadataExt;
    let mut content = vec![0; 32 << 20];
    content[5] = 1;
    let how = Unpacking { directory: Some(std::env::temp_dir()), watcher: None };
    let file = to_file(&packed(Packing::Zstd, &content), Packing::Zstd, false, &how).unwrap();
    let meta = file.metadata().unwrap();
    assert_eq!((meta.len(), meta.nlink()), (content.len() as u64, 0));
    assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
    let none = to_file(b"", Packing::Zstd, false, &Unpacking::default()).unwrap_err();
    assert!(matches!(none, UnpackError::Nowhere("zstd")), "{none}");
}
