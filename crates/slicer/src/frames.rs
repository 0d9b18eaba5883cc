//! Rebuilds call frames with a shadow stack keyed by the return slot's address.
//!
//! A call opens a frame; the return that consumes its slot and goes to its return address closes
//! it. `syscall` .. `sysret` is a frame like any other. A `ret` that goes elsewhere is a computed
//! jump (retpolines), and a call whose slot no return takes is a plain jump that pushes; so are
//! calls that the end mark leaves open. A jump to a function's entry goes on in the same frame as
//! that function.
//!
//! A function is told apart by its whole calling context. Small helpers (list checks, locks,
//! `memset`, thunks for indirect calls) are called from everywhere: were all their calls one
//! function, whatever matters in one call would matter in all, and the slice would take in every
//! caller.

use ir::Kind;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::Error;
use crate::preprocess::Kept;
use crate::recording::Recording;

/// What a step does to the frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Move {
    /// Stays in the function.
    Stay,
    /// Opens a frame of this function.
    Call(u32),
    /// Goes on as this function in the same frame.
    Tail(u32),
    /// Closes this many frames.
    Return(u32),
}

/// A function as frames know it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FuncKey {
    /// Address of its entry.
    pub entry: u64,
    /// The call or jump that reached it.
    pub via: u64,
    /// The function (in its own context) that it was reached from.
    pub parent: u32,
}

/// "No parent": the function of the begin mark.
const ROOT: u32 = u32::MAX;

/// What all recordings together say about functions.
#[derive(Default)]
pub struct Functions {
    index: FxHashMap<FuncKey, u32>,
    /// The functions by number.
    pub keys: Vec<FuncKey>,
    entries: FxHashSet<u64>,
    pseudo: FxHashSet<u64>,
}

/// The frames of one recording, by kept step.
#[derive(Default)]
pub struct Path {
    /// The function each step belongs to.
    pub func: Vec<u32>,
    /// What each step does.
    pub moves: Vec<Move>,
}

struct Frame {
    func: u32,
    slot: u64,
    return_pc: u64,
    call_pc: u64,
    system: bool,
    /// The step that opened it, among those kept.
    opened: usize,
}

impl Functions {
    /// The number of a function in its calling context. A recursive call is the same function as
    /// the frame further out.
    fn intern(&mut self, entry: u64, via: u64, parent: u32) -> u32 {
        let mut outer = parent;
        while let Some(key) = self.keys.get(outer as usize) {
            if key.entry == entry {
                return outer;
            }
            outer = key.parent;
        }
        let key = FuncKey { entry, via, parent };
        *self.index.entry(key).or_insert_with(|| {
            self.keys.push(key);
            (self.keys.len() - 1) as u32
        })
    }

    /// Whether this address is a function's entry.
    #[must_use]
    pub fn is_entry(&self, pc: u64) -> bool {
        self.entries.contains(&pc)
    }

    /// Whether the call at this address only pushes and jumps.
    #[must_use]
    pub fn is_pseudo_call(&self, pc: u64) -> bool {
        self.pseudo.contains(&pc)
    }

    /// Learns entries, thunks and pseudo calls from all recordings until nothing new is found.
    pub fn learn(&mut self, recordings: &[(&Recording, &Kept)]) {
        for _ in 0..8 {
            let before = (self.entries.len(), self.pseudo.len());
            self.entries.retain(|_| false);
            for (recording, kept) in recordings {
                self.walk(recording, kept, true);
            }
            if before == (self.entries.len(), self.pseudo.len()) {
                break;
            }
        }
        self.index.clear();
        self.keys.clear();
    }

    /// The frames of a recording.
    ///
    /// # Errors
    /// [`Error::EndFrame`] when the end mark is met inside a system call.
    pub fn path(&mut self, recording: &Recording, kept: &Kept) -> Result<Path, Error> {
        let (path, depth) = self.walk(recording, kept, false);
        if depth != 1 || path.func.len() != kept.steps.len() {
            return Err(Error::EndFrame { depth: depth as i64 - 1 });
        }
        Ok(path)
    }

    fn walk(&mut self, recording: &Recording, kept: &Kept, learning: bool) -> (Path, usize) {
        let mut path = Path::default();
        let Some(&first) = kept.steps.first() else { return (path, 1) };
        let base = self.intern(recording.pc(first as usize), 0, ROOT);
        let mut stack = vec![Frame {
            func: base,
            slot: u64::MAX,
            return_pc: u64::MAX,
            call_pc: 0,
            system: false,
            opened: 0,
        }];
        let mut entered = 0;
        for (opened, (&step, ended)) in kept.steps.iter().zip(&kept.ended).enumerate() {
            let code = recording.code_of(step as usize);
            let pc = code.insn.pc;
            let fallthrough = pc.wrapping_add(u64::from(code.insn.len));
            let Some(top) = stack.last() else { break };
            path.func.push(top.func);
            let mut step_move = Move::Stay;
            let mut jump = false;
            match ended.control {
                Some(Kind::Call) if !self.pseudo.contains(&pc) => {
                    if learning {
                        self.entries.insert(ended.next);
                    }
                    let func = self.intern(ended.next, pc, top.func);
                    stack.push(Frame {
                        func,
                        slot: ended.slot,
                        return_pc: fallthrough,
                        call_pc: pc,
                        system: false,
                        opened,
                    });
                    step_move = Move::Call(func);
                }
                Some(Kind::SysEnter) => {
                    if learning {
                        self.entries.insert(ended.next);
                    }
                    let func = self.intern(ended.next, pc, top.func);
                    stack.push(Frame {
                        func,
                        slot: u64::MAX,
                        return_pc: fallthrough,
                        call_pc: pc,
                        system: true,
                        opened,
                    });
                    entered = opened;
                    step_move = Move::Call(func);
                }
                Some(Kind::Ret) => {
                    let reach = stack.iter().rev().take_while(|frame| !frame.system).count();
                    let at =
                        (stack.len() - reach..stack.len()).rev().find(|&at| stack[at].slot == ended.slot);
                    match at {
                        Some(at) => {
                            let matched = stack[at].return_pc == ended.next;
                            if learning {
                                let skipped = if matched { at + 1 } else { at };
                                for frame in &stack[skipped..] {
                                    self.pseudo.insert(frame.call_pc);
                                }
                            }
                            let pops = stack.len() - at;
                            stack.truncate(at);
                            step_move = if matched { Move::Return(pops as u32) } else { Move::Stay };
                        }
                        None => {
                            jump = true;
                            if learning {
                                self.entries.insert(ended.next);
                            }
                        }
                    }
                }
                Some(Kind::SysExit) => {
                    let at = stack.iter().rposition(|frame| frame.system);
                    match at {
                        // `sysenter` keeps no return address: its system goes back to where it
                        // likes in the process.
                        Some(at) if stack[at].return_pc == ended.next || kept.exits.contains(&step) => {
                            step_move = Move::Return((stack.len() - at) as u32);
                            stack.truncate(at);
                        }
                        _ => jump = true,
                    }
                }
                Some(Kind::Jump | Kind::Call) => jump = true,
                Some(Kind::BranchIf) => jump = ended.next != fallthrough,
                _ => {}
            }
            if jump && let Some(top) = stack.last_mut() {
                let own = self.keys[top.func as usize].entry;
                if self.entries.contains(&ended.next) && ended.next != own && ended.next != pc {
                    // The jumping function is gone: the new one has the frame's caller and call.
                    let frame = self.keys[top.func as usize];
                    let func = self.intern(ended.next, frame.via, frame.parent);
                    top.func = func;
                    step_move = Move::Tail(func);
                }
            }
            path.moves.push(step_move);
        }
        if learning {
            // The end mark may lie in a function that its caller takes for the mark: nobody sees
            // these return. After a system call it may be another thread's function, or a signal's
            // handler.
            let last = stack.iter().skip(1).filter(|frame| !frame.system && frame.opened >= entered);
            self.pseudo.extend(last.map(|frame| frame.call_pc));
        }
        (path, stack.len())
    }
}
