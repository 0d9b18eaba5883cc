//! Firmware's tables in memory that is mostly garbage: a list of local APICs or none, twice the
//! same.
#![no_main]

use machine::memory::Mock;
use machine::{PhysAddr, firmware};

/// A root pointer at 0xf0000, its table at 0x1000, and that of the local APICs at 0x2000, all with
/// sums that fit; then what the data changes.
fn guest(data: &[u8]) -> Mock {
    let mut memory = Mock::new();
    let mut put = |at: u64, head: usize, name: &[u8], len: usize, word: (usize, u32), sum: usize| {
        let mut bytes = vec![0u8; len];
        bytes[..name.len()].copy_from_slice(name);
        if head > 20 {
            bytes[4..8].copy_from_slice(&(len as u32).to_le_bytes());
        }
        bytes[word.0..word.0 + 4].copy_from_slice(&word.1.to_le_bytes());
        bytes[sum] = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte));
        memory.write(PhysAddr(at), &bytes);
    };
    put(0xf_0000, 20, b"RSD PTR ", 20, (16, 0x1000), 8);
    put(0x1000, 36, b"RSDT", 40, (36, 0x2000), 9);
    // An entry of type 0 and 8 bytes, whose processor is there.
    put(0x2000, 44, b"APIC", 52, (44, 0x0102_0800), 9);
    for change in data.chunks_exact(3).take(256) {
        let (at, value) = (u64::from(u16::from_le_bytes([change[0], change[1]])), change[2]);
        let base = [0xf_0000, 0x1000, 0x2000, 0x2000][(at >> 14) as usize];
        memory.write(PhysAddr(base + at % 0x40), &[value]);
    }
    memory
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let memory = guest(data);
    assert_eq!(firmware::local_apics(&memory), firmware::local_apics(&memory));
});
