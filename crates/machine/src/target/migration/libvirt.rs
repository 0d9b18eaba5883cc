//! What `virsh save` and `virsh managedsave` put before a stream: a header, and the machine's
//! description in XML.
//!
//! `virQEMUSaveHeader` of libvirt's `src/qemu/qemu_saveimage.h`, version 2, in the byte order of
//! the machine that wrote it. The stream may be compressed.

use super::error::MigrationError;
use super::fields;

/// How a finished file begins.
pub(in crate::target) const MAGIC: &[u8] = b"LibvirtQemudSave";
/// Bytes of the header.
const HEADER: usize = 92;
/// Numbers of compressions: none, and those that are read by what they begin with.
const RAW: u32 = 0;

/// A file of `virsh save`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::target) struct Saved {
    /// Where the stream, or what it is compressed to, begins.
    pub(in crate::target) stream: usize,
    /// Whether it is compressed.
    pub(in crate::target) packed: bool,
}

impl Saved {
    /// The file's header, if it begins as one.
    pub(in crate::target) fn of(bytes: &[u8]) -> Option<Result<Self, MigrationError>> {
        bytes.starts_with(MAGIC).then(|| Self::parse(bytes))
    }

    fn parse(bytes: &[u8]) -> Result<Self, MigrationError> {
        let header = bytes.get(..HEADER).ok_or(MigrationError::Header("is cut off"))?;
        let numbers = header[MAGIC.len()..].as_chunks::<4>().0;
        let little = u32::from_le_bytes(numbers[0]) == 2;
        let number = |i: usize| match little {
            true => u32::from_le_bytes(numbers[i]),
            false => u32::from_be_bytes(numbers[i]),
        };
        if number(0) != 2 {
            return Err(MigrationError::Header("has a version that is not known"));
        }
        let stream = (HEADER as u64).saturating_add(number(1).into());
        let stream = usize::try_from(stream).ok().filter(|&stream| stream < bytes.len());
        let stream = stream.ok_or(MigrationError::Header("describes more than the file has"))?;
        match number(3) {
            RAW => Ok(Self { stream, packed: false }),
            _ => Ok(Self { stream, packed: !bytes[stream..].starts_with(fields::MAGIC) }),
        }
    }
}
