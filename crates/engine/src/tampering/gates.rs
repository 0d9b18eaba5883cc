//! Interrupt gates: where a target's processors go for each vector, against where training's went.

use machine::paging;
use machine::{VirtAddr, handler};

use super::comparison::{Comparison, wide};
use super::report::{Change, Difference, Place, Tampering};

impl Comparison<'_> {
    /// Compares the interrupt descriptor tables of all processors, each once.
    pub(super) fn compare_gates(&self, tables: &[Option<u64>], report: &mut Tampering) {
        let trusted = &self.system.integrity().gates;
        let mut tables = tables.to_vec();
        tables.sort_unstable();
        tables.dedup();
        if tables.is_empty() || trusted.is_empty() {
            report.uncompared.tables += 1;
            return;
        }
        for table in tables {
            let found = table.and_then(|base| {
                let (mode, root) = (self.relocation.mode(), self.relocation.root());
                let bytes = paging::read_mapped(self.memory, mode, root, VirtAddr(base), trusted.len());
                Some((base, bytes.into_iter().collect::<Option<Vec<u8>>>()?))
            });
            match found {
                Some((base, found)) => self.compare_table(base, trusted, &found, report),
                None => report.uncompared.tables += 1,
            }
        }
    }

    fn compare_table(&self, base: u64, trusted: &[u8], found: &[u8], report: &mut Tampering) {
        let (long, size) = if wide(&self.relocation) { (true, 16) } else { (false, 8) };
        for (number, (trusted, found)) in trusted.chunks(size).zip(found.chunks(size)).enumerate() {
            report.gates += 1;
            let expected = self.expected_gate(trusted, long);
            if expected == found {
                continue;
            }
            report.differences.push(Difference {
                address: base.wrapping_add((number * size) as u64),
                place: Place::Gate,
                change: Change::Foreign,
                leads_to: read(found, long).map(|it| self.reported(it)),
                trusted: expected,
                found: found.to_vec(),
            });
        }
    }

    /// A gate as it would be in the target.
    fn expected_gate(&self, gate: &[u8], long: bool) -> Vec<u8> {
        let mut expected = gate.to_vec();
        let Some(new) = read(gate, long).and_then(|handler| self.moved(handler)) else { return expected };
        let new = new.to_le_bytes();
        expected[0..2].copy_from_slice(&new[0..2]);
        expected[6..8].copy_from_slice(&new[2..4]);
        if long {
            expected[8..12].copy_from_slice(&new[4..8]);
        }
        expected
    }
}

/// Where a gate leads (SDM vol. 3 sections 6.11 and 6.14.1).
fn read(gate: &[u8], long: bool) -> Option<u64> {
    let mut whole = [0; 16];
    whole.get_mut(..gate.len())?.copy_from_slice(gate);
    handler(&whole, long).filter(|_| gate.len() == if long { 16 } else { 8 })
}
