//! What a processor reads and writes to deliver a software interrupt from a process to its system
//! (Intel SDM vol. 3 sections 6.12.1 and 6.14).
//!
//! The lifter's operations for the instruction load and store the same, each once.

use machine::{PhysAddr, VirtAddr};
use trace::Access;

use crate::segment::Tables;

/// The accesses, without physical addresses. `tables` are the bases of interrupt table, task-state
/// segment and descriptor table, `after` CS, SS and stack pointer as the handler begins; `read`
/// gives a number of so many bytes.
pub fn accesses(
    vector: u8,
    long: bool,
    tables: [u64; 3],
    after: [u64; 3],
    stack_base: u64,
    read: &dyn Fn(u64, u8) -> u64,
) -> Vec<Access> {
    let ([idt, task, gdt], [cs, ss, rsp]) = (tables, after);
    let gate = idt.wrapping_add(u64::from(vector) << if long { 4 } else { 3 });
    let mut loads = vec![(gate, 4), (gate.wrapping_add(4), 4)];
    let word = if long { 8 } else { 4 };
    if long {
        let number = read(gate.wrapping_add(4), 4) & 7;
        loads.push((gate.wrapping_add(8), 4));
        loads.push((task.wrapping_add(if number == 0 { 4 } else { 0x1c + 8 * number }), 8));
    } else {
        loads.extend([(task.wrapping_add(4), 4), (task.wrapping_add(8), 2)]);
        for selector in [cs, ss] {
            let descriptor = Tables { global: Some(gdt), local: None }.address(selector).unwrap_or(gdt);
            loads.extend([(descriptor, 4), (descriptor.wrapping_add(4), 4)]);
        }
    }
    let access = |store, address: u64, size: u8| {
        let address = if long { address } else { address & 0xffff_ffff };
        let value = u128::from(read(address, size));
        Access {
            store,
            vaddr: VirtAddr(address),
            paddr: PhysAddr(0),
            next_page: None,
            size,
            value,
            io: false,
        }
    };
    let stores = (0..5).rev().map(|at| stack_base.wrapping_add(rsp).wrapping_add(at * word));
    let stores = stores.map(|address| access(true, address, word as u8));
    loads.iter().map(|&(address, size)| access(false, address, size)).chain(stores).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_the_stack_pointer_and_five_words() {
        let read = |_: u64, _: u8| 0;
        let seen = |long| {
            let all = accesses(0x80, long, [0x1000, 0x2000, 0x3000], [0x10, 0x18, 0x5000], 0, &read);
            all.iter().map(|it| (it.store, it.vaddr.0, it.size)).collect::<Vec<_>>()
        };
        let narrow = seen(false);
        assert_eq!(
            narrow[..4],
            [(false, 0x1400, 4), (false, 0x1404, 4), (false, 0x2004, 4), (false, 0x2008, 2)]
        );
        assert_eq!(narrow[4..6], [(false, 0x3010, 4), (false, 0x3014, 4)]);
        assert_eq!(narrow[8..10], [(true, 0x5010, 4), (true, 0x500c, 4)]);
        let wide = seen(true);
        assert_eq!(
            wide[..4],
            [(false, 0x1800, 4), (false, 0x1804, 4), (false, 0x1808, 4), (false, 0x2004, 8)]
        );
        assert_eq!((wide[4], wide.len()), ((true, 0x5020, 8), 9));
    }
}
