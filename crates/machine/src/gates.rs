//! Interrupt gates: where a processor goes for each vector.
//!
//! A kernel's handlers lie in its image, so the distance between two boots' handlers is that
//! between their images. Task gates and absent ones are left out; nothing is judged.

use crate::addr::VirtAddr;
use crate::memory::GuestMemory;
use crate::paging::{self, PagingMode};

/// The present interrupt and trap gates of the table at linear address `base`, up to `vectors` of
/// them: vector and handler, ascending by vector. Gates that are not mapped are left out (SDM vol.
/// 3 sections 6.11 and 6.14.1).
#[must_use]
pub fn gates(
    memory: &dyn GuestMemory,
    mode: PagingMode,
    root: u64,
    base: u64,
    vectors: u8,
) -> Vec<(u8, u64)> {
    table(memory, mode, root, base, vectors)
        .into_iter()
        .map(|(vector, handler, _)| (vector, handler))
        .collect()
}

/// The handlers of the trap gates among them: the processor leaves interrupts enabled as it goes
/// there (SDM vol. 3 section 6.12.1.3).
#[must_use]
pub fn trap_handlers(
    memory: &dyn GuestMemory,
    mode: PagingMode,
    root: u64,
    base: u64,
    vectors: u8,
) -> Vec<u64> {
    table(memory, mode, root, base, vectors).into_iter().filter(|gate| gate.2).map(|gate| gate.1).collect()
}

/// Vector, handler, and whether it is a trap gate.
fn table(
    memory: &dyn GuestMemory,
    mode: PagingMode,
    root: u64,
    base: u64,
    vectors: u8,
) -> Vec<(u8, u64, bool)> {
    let long = mode.linear_bits() > 32;
    let size = if long { 16 } else { 8 };
    let mut found = Vec::new();
    for vector in 0..vectors {
        let mut gate = [0u8; 16];
        let at = base.wrapping_add(u64::from(vector) * size);
        let bytes = paging::read_mapped(memory, mode, root, VirtAddr(at), size as usize);
        let whole = bytes.iter().all(Option::is_some);
        gate.iter_mut().zip(bytes.into_iter().flatten()).for_each(|(place, byte)| *place = byte);
        if let Some(handler) = handler(&gate, long).filter(|_| whole) {
            found.push((vector, handler, gate[5] & 0xf == 0xf));
        }
    }
    found
}

/// Where one gate leads; `None` if it is absent or no interrupt or trap gate of 32 or 64 bits. A
/// gate that is not `long` has 8 bytes, the others do not count.
#[must_use]
pub fn handler(gate: &[u8; 16], long: bool) -> Option<u64> {
    if gate[5] & 0x80 == 0 || !matches!(gate[5] & 0x1f, 0x0e | 0x0f) {
        return None;
    }
    let low = u64::from(u16::from_le_bytes([gate[0], gate[1]]))
        | u64::from(u16::from_le_bytes([gate[6], gate[7]])) << 16;
    let high = u64::from(u32::from_le_bytes([gate[8], gate[9], gate[10], gate[11]])) << 32;
    Some(if long { low | high } else { low })
}
