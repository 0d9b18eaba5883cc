//! Reading a stream's numbers and names, in order and never beyond its end.

/// How a stream begins.
pub(in crate::target) const MAGIC: &[u8] = b"QEVM";

/// A place in a stream. What lies behind the end is `None`, and the place stays.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Fields<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// Bytes of the whole stream.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn take(&mut self, len: u64) -> Option<&'a [u8]> {
        let end = self.at.checked_add(usize::try_from(len).ok()?)?;
        let bytes = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    /// The next byte, which stays to be read.
    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| number(bytes) as u16)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|bytes| number(bytes) as u32)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.take(8).map(number)
    }

    /// A name with its length before it.
    pub(super) fn name(&mut self) -> Option<&'a [u8]> {
        let len = self.u8()?;
        self.take(len.into())
    }
}

/// The big-endian number that up to eight bytes are.
pub(super) fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}
