//! Writers for the formats that need one: kdump, flattened streams, LiME, AVML.

use std::collections::BTreeMap;
use std::io::Write;

use super::{note, note_segment};

/// Page frames and their bytes.
pub type Pages = BTreeMap<u64, Vec<u8>>;

/// Some RAM: two ranges, with pages that compress well, badly, and to nothing.
pub fn pages() -> Pages {
    let mut state = 7u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let mut page = |frame: u64| match frame % 4 {
        0 => vec![0; 4096],
        1 => (0..4096u32).map(|_| noise()).collect(),
        kind => (0..4096u64).map(|i| (i / (kind * 50) + frame) as u8).collect(),
    };
    (1..7).chain(0x80..0x83).map(|frame| (frame, page(frame))).collect()
}

/// How pages of a kdump are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Packing {
    Stored,
    Zlib,
    Lzo,
    Snappy,
    Zstd,
}

impl Packing {
    pub const ALL: [Self; 5] = [Self::Stored, Self::Zlib, Self::Lzo, Self::Snappy, Self::Zstd];

    fn flags(self) -> u32 {
        [0, 1, 2, 4, 0x20][self as usize]
    }

    fn pack(self, page: &[u8]) -> Vec<u8> {
        match self {
            Self::Stored => page.to_vec(),
            Self::Zlib => miniz_oxide::deflate::compress_to_vec_zlib(page, 1),
            Self::Lzo => lzokay::compress::compress(page).unwrap(),
            Self::Snappy => snap::raw::Encoder::new().compress_vec(page).unwrap(),
            Self::Zstd => zstd::bulk::compress(page, 1).unwrap(),
        }
    }
}

/// A kdump to write.
pub struct Kdump {
    pub is64: bool,
    pub packing: Packing,
    /// Processors' notes.
    pub notes: Vec<u8>,
    /// Frames that are RAM but left out.
    pub filtered: Vec<u64>,
    pub machine: &'static str,
}

impl Kdump {
    pub fn new(is64: bool, packing: Packing) -> Self {
        let notes = note_segment(&[note(true), note(true)]);
        Self { is64, packing, notes, filtered: vec![0x80], machine: "x86_64" }
    }

    /// The pieces of the file as its writer writes them: where, and what.
    pub fn pieces(&self, pages: &Pages) -> Vec<(u64, Vec<u8>)> {
        let last = pages.keys().next_back().unwrap() + 1;
        let (status, notes_at) = if self.is64 { (424, 4096 + 104) } else { (412, 4096 + 80) };
        let mut main = vec![0; status + 40];
        main[..12].copy_from_slice(b"KDUMP   \x06\0\0\0");
        main[272..272 + self.machine.len()].copy_from_slice(self.machine.as_bytes());
        let sub_blocks = (notes_at - 4096 + self.notes.len() as u64).div_ceil(4096) as u32;
        for (i, word) in [self.packing.flags(), 4096, sub_blocks, 2, last as u32].into_iter().enumerate() {
            main[status + 4 * i..][..4].copy_from_slice(&word.to_le_bytes());
        }
        let mut sub = vec![0; (notes_at - 4096) as usize];
        let (at, width, pages_at) = if self.is64 { (48, 8, 96) } else { (32, 4, 72) };
        sub[at..at + 8].copy_from_slice(&notes_at.to_le_bytes());
        sub[at + 8..][..width].copy_from_slice(&self.notes.len().to_le_bytes()[..width]);
        sub[pages_at..pages_at + 8].copy_from_slice(&last.to_le_bytes());
        let bitmaps = 4096 * u64::from(1 + sub_blocks);
        let (mut ram, mut dumped) = (vec![0u8; 4096], vec![0u8; 4096]);
        for &frame in pages.keys() {
            ram[frame as usize / 8] |= 1 << (frame % 8);
            if !self.filtered.contains(&frame) {
                dumped[frame as usize / 8] |= 1 << (frame % 8);
            }
        }
        let kept: Vec<_> = pages.iter().filter(|(frame, _)| !self.filtered.contains(frame)).collect();
        let (mut descriptors, mut data) = (Vec::new(), vec![0; 4096]);
        let data_at = bitmaps + 2 * 4096 + 24 * kept.len() as u64;
        for (_, page) in kept {
            let packed = self.packing.pack(page);
            let (offset, packed, flags) = match () {
                () if page.iter().all(|&byte| byte == 0) => (data_at, &page[..], 0),
                () if packed.len() < 4096 => (data_at + data.len() as u64, &packed[..], self.packing.flags()),
                () => (data_at + data.len() as u64, &page[..], 0),
            };
            descriptors.extend(offset.to_le_bytes());
            descriptors.extend((packed.len() as u32).to_le_bytes());
            descriptors.extend(flags.to_le_bytes());
            descriptors.extend([0; 8]);
            if offset != data_at {
                data.extend(packed);
            }
        }
        vec![
            (0, main),
            (4096, sub),
            (notes_at, self.notes.clone()),
            (bitmaps, ram),
            (bitmaps + 4096, dumped),
            (bitmaps + 2 * 4096, descriptors),
            (data_at, data),
        ]
    }

    /// The file.
    pub fn file(&self, pages: &Pages) -> Vec<u8> {
        let mut file = Vec::new();
        for (place, data) in self.pieces(pages) {
            let end = place as usize + data.len();
            file.resize(file.len().max(end), 0);
            file[place as usize..end].copy_from_slice(&data);
        }
        file
    }

    /// A file whose pages all are one compressed page of it.
    pub fn bomb(&self, pages: u64) -> Vec<u8> {
        let packed = self.packing.pack(&[7; 4096]);
        let bits = vec![0xff; pages.div_ceil(8).next_multiple_of(4096) as usize];
        let mut file = self.file(&BTreeMap::from([(0, vec![7; 4096])]));
        // Behind the blocks of the sub header, whose number comes before that of the bitmaps'.
        file.truncate(4096 * (1 + usize::from(file[432])));
        for (i, word) in [2 * (bits.len() / 4096) as u32, pages as u32].into_iter().enumerate() {
            file[436 + 4 * i..][..4].copy_from_slice(&word.to_le_bytes());
        }
        file[4096 + 96..][..8].copy_from_slice(&pages.to_le_bytes());
        file.extend([&bits[..], &bits[..]].concat());
        let data = file.len() as u64 + 24 * pages;
        for _ in 0..pages {
            file.extend(data.to_le_bytes());
            file.extend((packed.len() as u32).to_le_bytes());
            file.extend(self.packing.flags().to_le_bytes());
            file.extend([0; 8]);
        }
        file.extend(&packed);
        file
    }

    /// The stream of a writer that cannot seek, in pieces of `size` bytes; zeroes at their ends are
    /// left out.
    pub fn stream(&self, pages: &Pages, size: usize) -> Vec<u8> {
        let mut out = b"makedumpfile\0\0\0\0".to_vec();
        out.extend([1i64.to_be_bytes(), 1i64.to_be_bytes()].concat());
        out.resize(4096, 0);
        let last = self.pieces(pages).len() - 1;
        for (i, (place, data)) in self.pieces(pages).into_iter().enumerate() {
            for (k, piece) in data.chunks(size).enumerate() {
                let used = piece.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1);
                // The last piece says how long the file is.
                let piece = if i == last { piece } else { &piece[..used] };
                out.extend((place as i64 + (k * size) as i64).to_be_bytes());
                out.extend((piece.len() as i64).to_be_bytes());
                out.extend(piece);
            }
        }
        out.extend([0xff; 16]);
        out
    }
}

/// Runs of frames, as the first and one past the last byte, with their bytes.
fn runs(pages: &Pages) -> Vec<(u64, Vec<u8>)> {
    let mut runs: Vec<(u64, Vec<u8>)> = Vec::new();
    for (frame, page) in pages {
        match runs.last_mut() {
            Some((start, bytes)) if *start + bytes.len() as u64 == frame * 4096 => bytes.extend(page),
            _ => runs.push((frame * 4096, page.clone())),
        }
    }
    runs
}

fn header(magic: &[u8; 4], version: u32, start: u64, len: usize) -> Vec<u8> {
    let mut out = [&magic[..], &version.to_le_bytes(), &start.to_le_bytes()].concat();
    out.extend((start + len as u64 - 1).to_le_bytes());
    out.extend([0; 8]);
    out
}

/// A LiME capture.
pub fn lime(pages: &Pages) -> Vec<u8> {
    let blocks = runs(pages).into_iter();
    blocks.flat_map(|(start, bytes)| [header(b"EMiL", 1, start, bytes.len()), bytes].concat()).collect()
}

/// An AVML capture of blocks of at most `block` bytes; the first begins `skip` bytes late.
pub fn avml(pages: &Pages, block: usize, skip: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for (i, (start, bytes)) in runs(pages).into_iter().enumerate() {
        let skip = if i == 0 { skip } else { 0 };
        let mut at = start + skip as u64;
        for part in bytes[skip..].chunks(block) {
            out.extend(header(b"AVML", 2, at, part.len()));
            let mut encoder = snap::write::FrameEncoder::new(Vec::new());
            encoder.write_all(part).unwrap();
            let frames = encoder.into_inner().unwrap();
            out.extend(&frames);
            out.extend((frames.len() as u64).to_le_bytes());
            at += part.len() as u64;
        }
    }
    out
}

/// A snapshot of VMware with its memory inside: two regions, of which the second has a hole before
/// it.
pub fn vmware(low: &[u8], high: &[u8], high_frame: u32) -> Vec<u8> {
    let tag = |name: &str, index: u32, value: u32| {
        let head = [1 << 6 | 4, name.len() as u8];
        [&head[..], name.as_bytes(), &index.to_le_bytes(), &value.to_le_bytes()].concat()
    };
    let mut out = [0xbed2_bed2u32, 8, 1].map(u32::to_le_bytes).concat();
    out.extend(b"memory");
    out.resize(12 + 64, 0);
    out.extend([92u64.to_le_bytes(), [0; 8]].concat());
    let pages = |bytes: &[u8]| bytes.len() as u32 / 4096;
    out.extend(tag("regionsCount", 0, 2));
    for (i, [page, frame, size]) in
        [[0, 0, pages(low)], [pages(low), high_frame, pages(high)]].into_iter().enumerate()
    {
        let i = i as u32;
        out.extend(
            [tag("regionPageNum", i, page), tag("regionPPN", i, frame), tag("regionSize", i, size)].concat(),
        );
    }
    let memory = [low, high].concat();
    out.extend([&[2 << 6 | 63, 6][..], b"Memory", &[0; 8]].concat());
    out.extend([(memory.len() as u64).to_le_bytes(), (memory.len() as u64).to_le_bytes()].concat());
    out.extend([2, 0, 0, 0]);
    out.extend(memory);
    out.extend([0, 0]);
    out
}
