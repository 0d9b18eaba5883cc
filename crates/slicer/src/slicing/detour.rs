//! Unexecuted code between a branch and executed code, or the function's end.

use ir::{Arg, Class, Kind, Op};
use machine::VirtAddr;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::analysis::liveness;
use crate::analysis::solver::closure;
use crate::context::Entries;
use crate::vocabulary::{CodeSource, ContextId, RegisterSet, SiteId};

/// The most unexecuted instructions that are followed from a branch's side.
const MAX_DETOUR: usize = 96;
/// The most instructions of a detour some of whose sides do not come back: a check or two.
const MAX_CHECK: usize = 16;

/// What was executed of a function.
pub struct Executed {
    /// Its sites, by address.
    pub sites: FxHashMap<VirtAddr, SiteId>,
    /// The contexts that it was seen to go on as by tail calls, by address.
    pub tails: FxHashMap<VirtAddr, ContextId>,
}

/// What is known of the code around a branch.
pub struct Known<'k> {
    /// Functions' entries.
    pub entries: &'k Entries,
    /// Where code comes from that nobody executed.
    pub source: &'k dyn CodeSource,
    /// What was executed of the function.
    pub executed: &'k Executed,
}

/// An instruction of a detour.
pub struct Unexecuted {
    /// The instruction.
    pub insn: lift::Insn,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// Plain code between a branch and executed code, or the function's end.
pub struct Detour {
    /// Its instructions.
    pub insns: Vec<Unexecuted>,
    /// The mode that they are executed in.
    pub mode: lift::Mode,
    /// Registers that it may use before it defines them.
    pub uses: RegisterSet,
}

/// Unexecuted code that is reached from an address, and where it leads.
#[derive(Default)]
struct Reached {
    insns: Vec<Unexecuted>,
    /// Where each instruction leads within its function.
    ways: FxHashMap<VirtAddr, Vec<VirtAddr>>,
    /// Instructions that lead to executed code, return, or end the function by a tail call that was
    /// seen.
    back: Vec<VirtAddr>,
}

impl Reached {
    /// The code reached from `start`; `None` if it is too much, or its bytes are not known.
    fn from(known: &Known<'_>, mode: lift::Mode, start: VirtAddr) -> Option<Self> {
        let executed = known.executed;
        let mut reached = Self::default();
        // Depth first: the order decides how sites are numbered.
        let mut stack = vec![start];
        while let Some(pc) = stack.pop() {
            let seen = reached.ways.contains_key(&pc);
            if seen || executed.sites.contains_key(&pc) || known.entries.is_entry(pc) {
                continue;
            }
            if reached.insns.len() >= MAX_DETOUR {
                return None;
            }
            let insn = known.source.insn(mode, pc).filter(is_plain);
            let Some(insn) = insn else { continue };
            let bytes = known.source.bytes(pc, usize::from(insn.len))?;
            // Only an unconditional jump can be a tail call here: a branch to another function
            // stays unexplored.
            let ends = jump(&insn).is_some_and(|target| executed.tails.contains_key(&target));
            let ways = if ends { Vec::new() } else { targets(&insn) };
            if ends || returns(&insn) || ways.iter().any(|way| executed.sites.contains_key(way)) {
                reached.back.push(pc);
            }
            stack.extend(&ways);
            reached.ways.insert(pc, ways);
            reached.insns.push(Unexecuted { insn, bytes });
        }
        Some(reached)
    }

    /// The instructions from which some path leads back.
    fn coming_back(&self) -> FxHashSet<VirtAddr> {
        let mut before: FxHashMap<VirtAddr, Vec<VirtAddr>> = FxHashMap::default();
        for (&pc, ways) in &self.ways {
            ways.iter().for_each(|&way| before.entry(way).or_default().push(pc));
        }
        closure(self.back.iter().copied(), |pc: VirtAddr| before.get(&pc).cloned().unwrap_or_default())
    }
}

impl Detour {
    /// The detour at an address, if all paths from there come back to executed code of the
    /// function, return, or end it by a tail call that was seen. A few instructions that store
    /// nothing are taken even if they have sides that do not come back: these sides stay
    /// unexplored.
    #[must_use]
    pub fn find(known: &Known<'_>, mode: lift::Mode, start: VirtAddr) -> Option<Self> {
        let executed = &known.executed.sites;
        let reached = Reached::from(known, mode, start)?;
        let comes_back = reached.coming_back();
        let fine = |way: &VirtAddr| executed.contains_key(way) || comes_back.contains(way);
        let open = reached.ways.iter().any(|(pc, ways)| !comes_back.contains(pc) || !ways.iter().all(fine));
        let mut insns = reached.insns;
        insns.retain(|it| comes_back.contains(&VirtAddr(it.insn.pc)));
        let stores = insns.iter().any(|it| it.insn.ops.iter().any(|op| op.kind == Kind::Store));
        let fits = !open || insns.len() <= MAX_CHECK && !stores;
        let uses = exposed(&insns, &reached.ways, start);
        (fits && fine(&start)).then_some(Self { insns, mode, uses })
    }
}

/// The registers that some path from `start` through these instructions uses before it defines
/// them: backward liveness, within the detour alone.
fn exposed(insns: &[Unexecuted], ways: &FxHashMap<VirtAddr, Vec<VirtAddr>>, start: VirtAddr) -> RegisterSet {
    let mut before: FxHashMap<VirtAddr, RegisterSet> = FxHashMap::default();
    let mut changed = true;
    while changed {
        changed = false;
        for it in insns.iter().rev() {
            let pc = VirtAddr(it.insn.pc);
            let mut live = RegisterSet::default();
            ways[&pc].iter().filter_map(|way| before.get(way)).for_each(|next| _ = live.union(next));
            live = live.without(&liveness::defines(&it.insn.ops));
            live.union(&liveness::exposed(&it.insn.ops, |_| true));
            changed |= before.entry(pc).or_default().union(&live);
        }
    }
    before.get(&start).copied().unwrap_or_default()
}

/// Where an instruction that is nothing but a jump leads.
pub fn jump(insn: &lift::Insn) -> Option<VirtAddr> {
    match insn.ops.as_slice() {
        [Op { kind: Kind::Jump, args: [Arg::Const(target), ..], .. }] => Some(VirtAddr(*target)),
        _ => None,
    }
}

/// Whether an instruction ends its function.
pub fn returns(insn: &lift::Insn) -> bool {
    insn.ops.last().is_some_and(|op| op.kind == Kind::Ret)
}

/// Where an instruction leads within its function.
pub fn targets(insn: &lift::Insn) -> Vec<VirtAddr> {
    lift::control(insn).successors().map(VirtAddr).collect()
}

/// Whether an instruction only computes, loads, stores, and goes on to known addresses or returns.
fn is_plain(insn: &lift::Insn) -> bool {
    let acts = |op: &Op| matches!(op.class(), Class::Effect | Class::Nondet);
    lift::control(insn).is_plain() && !insn.ops.iter().any(acts)
}
