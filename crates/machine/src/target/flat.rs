//! The bytes of a dump: a file as it is, or the file that a flattened stream describes.
//!
//! A writer that cannot seek (a pipe, a network) says where each piece belongs: a header block with
//! the signature "makedumpfile", then pieces, each with its place and size as big-endian 64-bit
//! numbers before it, then a piece at place -1. Format: makedumpfile's `-F`, and the default of
//! QEMU's `dump-guest-memory` for compressed dumps (`write_start_flat_header` and `write_buffer` in
//! its `dump/dump.c`). Places between the pieces read as zero, as they do in the sparse file that
//! `makedumpfile -R` makes of the stream.
//!
//! Opening walks the pieces, some 16 KiB each, so it costs time and 24 bytes per piece; data stays
//! where it is.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// How the stream begins.
pub(super) const MAGIC: &[u8] = b"makedumpfile\0\0\0\0";
/// Bytes before the first piece.
const HEADER: usize = 4096;
/// Pieces accepted: 16 M of QEMU's make 250 GB, and their index 400 MB.
const MAX_PIECES: usize = 1 << 24;

/// Why a flattened stream cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FlatError {
    /// It ends without the mark at its end.
    #[error("truncated: the flattened stream ends at byte {0:#x} without its end mark")]
    Truncated(usize),
    /// Another version of the stream.
    #[error("the flattened stream has type {kind} and version {version}; 1 and 1 are understood")]
    Version {
        /// Its type.
        kind: i64,
        /// Its version.
        version: i64,
    },
    /// A piece with a negative place or size.
    #[error("broken flattened stream: the piece at byte {0:#x} has no possible place or size")]
    Piece(usize),
    /// More pieces than any dump has.
    #[error("the flattened stream has more than {MAX_PIECES} pieces")]
    TooMany,
}

/// The bytes of a dump.
#[derive(Debug)]
pub(super) enum Source<B> {
    /// A file as it is.
    Plain(B),
    /// A flattened stream.
    Flat(Flat<B>),
}

/// A flattened stream with its index.
#[derive(Debug)]
pub(super) struct Flat<B> {
    bytes: B,
    /// Sorted by place, disjoint, not empty.
    pieces: Vec<Piece>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Piece {
    place: u64,
    size: u64,
    /// Where in the stream.
    at: u64,
}

impl Piece {
    fn end(&self) -> u64 {
        self.place + self.size
    }
}

impl<B: AsRef<[u8]>> Source<B> {
    /// The file that `bytes` are or describe.
    pub(super) fn new(bytes: B) -> Result<Self, FlatError> {
        if !bytes.as_ref().starts_with(MAGIC) {
            return Ok(Self::Plain(bytes));
        }
        let pieces = settle(pieces(bytes.as_ref())?);
        Ok(Self::Flat(Flat { bytes, pieces }))
    }

    /// Bytes of the file; a stream may claim any number.
    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Plain(bytes) => bytes.as_ref().len() as u64,
            Self::Flat(flat) => flat.pieces.last().map_or(0, Piece::end),
        }
    }

    /// Bytes that there really are.
    pub(super) fn stored(&self) -> u64 {
        match self {
            Self::Plain(bytes) | Self::Flat(Flat { bytes, .. }) => bytes.as_ref().len() as u64,
        }
    }

    /// `len` bytes from `at` on, if they lie in one piece.
    pub(super) fn slice(&self, at: u64, len: usize) -> Option<&[u8]> {
        let (bytes, at) = match self {
            Self::Plain(bytes) => (bytes.as_ref(), at),
            Self::Flat(flat) => {
                let piece = flat.pieces[flat.first(at)..].first().filter(|piece| piece.place <= at)?;
                let end = at.checked_add(len as u64)?;
                (flat.bytes.as_ref(), (end <= piece.end()).then(|| piece.at + (at - piece.place))?)
            }
        };
        let at = usize::try_from(at).ok()?;
        bytes.get(at..at.checked_add(len)?)
    }

    /// `len` bytes from `at` on; `None` beyond the end, and for more than the stream has bytes.
    pub(super) fn get(&self, at: u64, len: usize) -> Option<Cow<'_, [u8]>> {
        if let Some(slice) = self.slice(at, len) {
            return Some(Cow::Borrowed(slice));
        }
        let Self::Flat(flat) = self else { return None };
        let end = at.checked_add(len as u64)?;
        if end > self.len() || len > flat.bytes.as_ref().len() {
            return None;
        }
        let mut out = vec![0; len];
        for piece in flat.pieces[flat.first(at)..].iter().take_while(|piece| piece.place < end) {
            let (from, to) = (piece.place.max(at), piece.end().min(end));
            let source = usize::try_from(piece.at + (from - piece.place)).ok()?;
            let n = (to - from) as usize;
            out[(from - at) as usize..][..n].copy_from_slice(flat.bytes.as_ref().get(source..source + n)?);
        }
        Some(Cow::Owned(out))
    }
}

impl<B> Flat<B> {
    /// The first piece that ends behind `at`.
    fn first(&self, at: u64) -> usize {
        self.pieces.partition_point(|piece| piece.end() <= at)
    }
}

/// All pieces in the order of the stream.
fn pieces(bytes: &[u8]) -> Result<Vec<Piece>, FlatError> {
    let truncated = FlatError::Truncated(bytes.len());
    let number = |at: usize| {
        let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
        field.map(|field| i64::from_be_bytes(*field)).ok_or(truncated)
    };
    let (kind, version) = (number(MAGIC.len())?, number(MAGIC.len() + 8)?);
    if (kind, version) != (1, 1) {
        return Err(FlatError::Version { kind, version });
    }
    let mut pieces = Vec::new();
    let mut at = HEADER;
    loop {
        let (place, size) = (number(at)?, number(at + 8)?);
        if place == -1 {
            return Ok(pieces);
        }
        let (Ok(place), Ok(size)) = (u64::try_from(place), u64::try_from(size)) else {
            return Err(FlatError::Piece(at));
        };
        let data = at + 16;
        let len = usize::try_from(size).map_err(|_| truncated)?;
        at = data.checked_add(len).filter(|&end| end <= bytes.len()).ok_or(truncated)?;
        if size != 0 {
            if pieces.len() == MAX_PIECES {
                return Err(FlatError::TooMany);
            }
            pieces.push(Piece { place, size, at: data as u64 });
        }
    }
}

/// Sorts pieces by place. Where they overlap the later one holds, as if each had been written to a
/// file.
fn settle(mut pieces: Vec<Piece>) -> Vec<Piece> {
    let mut sorted = pieces.clone();
    sorted.sort_unstable_by_key(|piece| piece.place);
    if sorted.windows(2).all(|pair| pair[0].end() <= pair[1].place) {
        return sorted;
    }
    let mut settled: BTreeMap<u64, Piece> = BTreeMap::new();
    for piece in pieces.drain(..) {
        if let Some((_, &before)) = settled.range(..piece.place).next_back()
            && before.end() > piece.place
        {
            settled.insert(before.place, Piece { size: piece.place - before.place, ..before });
            keep_tail(&mut settled, before, piece.end());
        }
        while let Some((&place, &old)) = settled.range(piece.place..piece.end()).next() {
            settled.remove(&place);
            keep_tail(&mut settled, old, piece.end());
        }
        settled.insert(piece.place, piece);
    }
    settled.into_values().collect()
}

/// Keeps what of `old` lies behind `end`.
fn keep_tail(settled: &mut BTreeMap<u64, Piece>, old: Piece, end: u64) {
    if old.end() > end {
        let cut = end - old.place;
        settled.insert(end, Piece { place: end, size: old.size - cut, at: old.at + cut });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(pieces: &[(i64, &[u8])]) -> Vec<u8> {
        let mut out = [MAGIC, &1i64.to_be_bytes(), &1i64.to_be_bytes()].concat();
        out.resize(HEADER, 0);
        for (place, data) in pieces {
            out.extend([place.to_be_bytes(), (data.len() as i64).to_be_bytes()].concat());
            out.extend(*data);
        }
        out.extend([0xff; 16]);
        out
    }

    #[test]
    fn pieces_are_read_as_the_file_they_make() {
        let bytes = stream(&[(8, b"efgh"), (0, b"abcd"), (20, b"xyz"), (4, b""), (12, b"ij")]);
        let source = Source::new(bytes).unwrap();
        assert_eq!(source.len(), 23);
        assert_eq!(source.slice(9, 2), Some(&b"fg"[..]));
        assert_eq!(source.slice(9, 5), None, "two pieces");
        let all = source.get(0, 23).unwrap();
        assert_eq!(&*all, b"abcd\0\0\0\0efghij\0\0\0\0\0\0xyz");
        assert_eq!(source.get(4, 2).as_deref(), Some(&[0, 0][..]));
        assert_eq!(source.get(22, 2), None);
        assert_eq!(source.get(u64::MAX, 2), None);
        assert!(matches!(Source::new(b"plain").unwrap().get(1, 3), Some(Cow::Borrowed(b"lai"))));
    }

    #[test]
    fn later_pieces_replace_earlier_ones() {
        let cases: [&[(i64, &[u8])]; 4] = [
            &[(0, b"aaaaaaaa"), (2, b"bb")],
            &[(2, b"bb"), (0, b"aaaaaaaa")],
            &[(0, b"aaaa"), (4, b"bbbb"), (2, b"cccc"), (5, b"d")],
            &[(0, b"aaaa"), (0, b"bb"), (1, b"cccccc"), (1, b"d")],
        ];
        for pieces in cases {
            let mut file = Vec::new();
            for (place, data) in pieces {
                let (place, end) = (*place as usize, *place as usize + data.len());
                file.resize(file.len().max(end), 0);
                file[place..end].copy_from_slice(data);
            }
            let source = Source::new(stream(pieces)).unwrap();
            assert_eq!(source.len(), file.len() as u64);
            assert_eq!(source.get(0, file.len()).unwrap(), file);
        }
    }

    #[test]
    fn broken_streams_are_refused() {
        let whole = stream(&[(0, b"abcd")]);
        for len in MAGIC.len()..whole.len() - 8 {
            assert!(Source::new(&whole[..len]).is_err(), "{len}");
        }
        let mut other = whole.clone();
        other[31] = 2;
        assert_eq!(Source::new(other).unwrap_err(), FlatError::Version { kind: 1, version: 2 });
        assert_eq!(Source::new(stream(&[(-2, b"")])).unwrap_err(), FlatError::Piece(HEADER));
        let far = Source::new(stream(&[(i64::MAX, b"ab")])).unwrap();
        assert_eq!(far.get(0, 1 << 40), None, "a claim costs nothing");
    }
}
