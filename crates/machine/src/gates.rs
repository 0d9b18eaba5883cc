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

/// By how much the handlers of one boot, `from`, lie elsewhere in another, `to`: every distance
/// that some vector has, what most have first. Of distances that equally many have, that of the
/// lowest vector comes first. Both lists are as [`gates`] gives them; vectors that only one has do
/// not count.
///
/// Handlers lie in the kernel's image, so the first distance is the likeliest of the images.
#[must_use]
pub fn slides(from: &[(u8, u64)], to: &[(u8, u64)]) -> Vec<u64> {
    let mut votes: Vec<(u64, usize)> = Vec::new();
    for &(vector, handler) in to {
        let Ok(at) = from.binary_search_by_key(&vector, |gate| gate.0) else { continue };
        let slide = handler.wrapping_sub(from[at].1);
        match votes.iter_mut().find(|vote| vote.0 == slide) {
            Some(vote) => vote.1 += 1,
            None => votes.push((slide, 1)),
        }
    }
    // The sort is stable.
    votes.sort_by_key(|vote| std::cmp::Reverse(vote.1));
    votes.into_iter().map(|vote| vote.0).collect()
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

#[cfg(test)]
mod tests {
    use super::slides;

    #[test]
    fn the_distance_that_most_gates_have_comes_first() {
        let from = [(0, 0x1000), (1, 0x2000), (2, 0x3000), (3, 0x4000), (14, 0x5000)];
        let to = [(0, 0x9000), (1, 0x1000), (2, 0x2000), (4, 0x7777), (14, 0xd000)];
        // Vectors 0 and 14 moved by 0x8000, 1 and 2 back by 0x1000: the lowest vector decides.
        assert_eq!(slides(&from, &to), [0x8000, 0x1000u64.wrapping_neg()]);
        assert_eq!(slides(&from, &to[1..]), [0x1000u64.wrapping_neg(), 0x8000]);
        assert_eq!(slides(&from, &from), [0]);
        assert_eq!((slides(&from, &[]), slides(&[], &to)), (vec![], vec![]));
    }
}
