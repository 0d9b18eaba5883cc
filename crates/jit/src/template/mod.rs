//! The templates: what an operation becomes.
//!
//! `rbx` has the address of the slots, `r12` that of the progress, `r13` that of the memory's hot
//! part; the other registers hold nothing from one operation to the next, but for `rax`, which may
//! still hold the slot that the last one wrote. Every result goes to its slot at once, so that code
//! can be left anywhere.

#![expect(clippy::useless_conversion, reason = "the assembler's macro converts numbers of registers")]

mod access;
mod control;
mod pure;

use std::collections::HashMap;
use std::mem::offset_of;

use dynasmrt::x64::Assembler;
use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, ExecutableBuffer, dynasm};
use ir::{Class, Kind, Width};

use crate::memory::Hot;
use crate::operation::{FIRST_CONST, Predecoded};
use crate::progress::{COMPARED, Exit, Inner, Progress, Resume, Source};
use crate::ways::{FACTOR, Ways};

const RAX: u8 = 0;
const RCX: u8 = 1;
const RDX: u8 = 2;
const R8: u8 = 8;

const TLB: i32 = offset_of!(Hot, tlb) as i32;
const STATE: i32 = offset_of!(Hot, state) as i32;
const USED: i32 = offset_of!(Progress, used) as i32;
const DUE: i32 = offset_of!(Progress, due) as i32;
const INSTRUCTIONS: i32 = offset_of!(Progress, instructions) as i32;
const SEEN: i32 = offset_of!(Progress, seen) as i32;
const NEXT: i32 = offset_of!(Progress, next) as i32;
const LOOK_AT: i32 = offset_of!(Progress, place) as i32;
const MARKED: i32 = offset_of!(Progress, marked) as i32;
const MEMORY: i32 = offset_of!(Progress, memory) as i32;
const REGISTERS: i32 = offset_of!(Progress, registers) as i32;
const TO: i32 = (offset_of!(Progress, inner) + offset_of!(Inner, to)) as i32;
const CALLS: i32 = (offset_of!(Progress, inner) + offset_of!(Inner, calls)) as i32;
const OPEN: i32 = (offset_of!(Progress, inner) + offset_of!(Inner, open)) as i32;
const ROOM: i32 = (offset_of!(Progress, inner) + offset_of!(Inner, room)) as i32;
const RETURNED: i32 = (offset_of!(Progress, inner) + offset_of!(Inner, returned)) as i32;

/// An operand.
#[derive(Clone, Copy)]
enum Operand {
    /// At this offset from `rbx`.
    Slot(i32),
    Value(u64),
}

/// Compiled blocks.
pub struct Compiled {
    /// The buffer, which begins with the function that enters it.
    pub code: ExecutableBuffer,
    /// Where each block is in it.
    pub entries: Vec<usize>,
    /// The exits by number.
    pub exits: Vec<Exit>,
    /// Where code goes on behind operations.
    pub resumes: Vec<usize>,
    /// What the code looks up.
    pub ways: Vec<Ways>,
}

/// Compiles blocks; `None` if there is no memory.
pub fn compile(blocks: &[Source<'_>]) -> Option<Compiled> {
    let mut assembler = Assembler::new_with_capacity(4096 * (1 + blocks.len() / 4)).ok()?;
    let (leave, same) = (assembler.new_dynamic_label(), assembler.new_dynamic_label());
    dynasm!(assembler
        ; .arch x64
        ; push rbp
        ; push rbx
        ; push r12
        ; push r13
        ; sub rsp, 8
        ; mov rbx, rdi
        ; mov r12, rsi
        ; mov r13, rdx
        ; jmp rcx
        ; =>leave
        ; add rsp, 8
        ; pop r13
        ; pop r12
        ; pop rbx
        ; pop rbp
        ; ret
        ; =>same
        ; mov rdx, [r13 + STATE]
        ; cmp rdx, [r12 + MEMORY]
        ; jne >differs
    );
    for at in (0..COMPARED as i32).map(|slot| slot * 8) {
        dynasm!(assembler ; .arch x64
            ; mov rdx, [rbx + at]
            ; cmp rdx, [r12 + REGISTERS + at]
            ; jne >differs
        );
    }
    dynasm!(assembler ; .arch x64 ; differs: ; ret);
    let labels: Vec<DynamicLabel> = blocks.iter().map(|_| assembler.new_dynamic_label()).collect();
    let places = blocks.iter().enumerate().map(|(at, it)| ((it.group, it.start), at)).collect();
    let mut groups: HashMap<u32, (Ways, DynamicLabel)> = HashMap::new();
    for block in blocks {
        let count = || blocks.iter().filter(|it| it.group == block.group).count();
        groups.entry(block.group).or_insert_with(|| (Ways::new(count()), assembler.new_dynamic_label()));
    }
    for (ways, label) in groups.values() {
        find_way(&mut assembler, ways, *label, leave);
    }
    let mut template = Template {
        assembler,
        blocks,
        labels,
        same,
        places,
        groups,
        at: 0,
        rax: None,
        exits: Vec::new(),
        stubs: Vec::new(),
        resumes: Vec::new(),
        behind: Vec::new(),
    };
    let mut entries = Vec::new();
    for at in 0..blocks.len() {
        entries.push(template.assembler.offset().0);
        template.at = at;
        template.block();
        template.leave_by(leave);
    }
    let Template { assembler, exits, resumes, mut groups, .. } = template;
    let code = assembler.finalize().ok()?;
    for (block, &entry) in blocks.iter().zip(&entries) {
        if let Some((ways, _)) = groups.get_mut(&block.group) {
            ways.add(block.start, code.as_ptr().addr() as u64 + entry as u64);
        }
    }
    Some(Compiled { code, entries, exits, resumes, ways: groups.into_values().map(|it| it.0).collect() })
}

/// Where a block of a group is whose address is in `rax`: goes there. If it is not known, the run
/// leaves by the exit in `esi`.
fn find_way(assembler: &mut Assembler, ways: &Ways, label: DynamicLabel, leave: DynamicLabel) {
    let places = ways.places.as_ptr().expose_provenance() as i64;
    dynasm!(assembler
        ; .arch x64
        ; =>label
        ; mov rdx, QWORD FACTOR.cast_signed()
        ; imul rdx, rax
        ; shr rdx, ways.shift as i8
        ; shl rdx, 4
        ; mov rcx, QWORD places
        ; add rdx, rcx
        ; cmp [rdx], rax
        ; jne >unknown
        ; mov rdx, [rdx + 8]
        ; test rdx, rdx
        ; jz >unknown
        ; jmp rdx
        ; unknown:
        ; mov [r12 + TO], rax
        ; mov eax, esi
        ; jmp =>leave
    );
}

struct Template<'b> {
    assembler: Assembler,
    blocks: &'b [Source<'b>],
    labels: Vec<DynamicLabel>,
    /// Compares with what there is to look for.
    same: DynamicLabel,
    /// Blocks by group and address.
    places: HashMap<(u32, u64), usize>,
    /// How ways are found whose end only the run knows.
    groups: HashMap<u32, (Ways, DynamicLabel)>,
    /// The block that is compiled.
    at: usize,
    /// The slot whose value `rax` has.
    rax: Option<u16>,
    exits: Vec<Exit>,
    /// Exits of this block that are still to be emitted.
    stubs: Vec<(DynamicLabel, Exit)>,
    /// Where code goes on behind operations, by number; 0 until it is emitted.
    resumes: Vec<usize>,
    /// What is still to be emitted of them for this block: the number, what goes on, and the slot
    /// whose value `rax` has there.
    behind: Vec<(Resume, DynamicLabel, Option<u16>)>,
}

impl Template<'_> {
    fn operand(&self, slot: u16) -> Operand {
        let constants = self.blocks[self.at].constants;
        let constant = slot.checked_sub(FIRST_CONST).and_then(|at| constants.get(usize::from(at)));
        constant.map_or(Operand::Slot(i32::from(slot) * 8), |value| Operand::Value(*value))
    }

    /// Loads an operand into a register; flags stay.
    fn load(&mut self, register: u8, slot: u16) {
        if self.rax == Some(slot) {
            if register != RAX {
                dynasm!(self.assembler ; .arch x64 ; mov Rq(register), rax);
            }
            return;
        }
        match self.operand(slot) {
            Operand::Slot(at) => dynasm!(self.assembler ; .arch x64 ; mov Rq(register), [rbx + at]),
            Operand::Value(value) => match (u32::try_from(value), i32::try_from(value.cast_signed())) {
                (Ok(value), _) => {
                    dynasm!(self.assembler ; .arch x64 ; mov Rd(register), value.cast_signed());
                }
                (_, Ok(value)) => dynasm!(self.assembler ; .arch x64 ; mov Rq(register), value),
                _ => dynasm!(self.assembler ; .arch x64 ; mov Rq(register), QWORD value.cast_signed()),
            },
        }
        if register == RAX {
            self.rax = None;
        }
    }

    /// Loads a into `rax` and b into `rcx`.
    fn load_both(&mut self, op: &Predecoded) {
        self.load(RCX, op.b);
        self.load(RAX, op.a);
    }

    /// Cuts `rax` to a width.
    fn cut(&mut self, width: Width) {
        match width {
            Width::B64 => {}
            Width::B32 => dynasm!(self.assembler ; .arch x64 ; mov eax, eax),
            Width::B16 => dynasm!(self.assembler ; .arch x64 ; movzx eax, ax),
            Width::B8 => dynasm!(self.assembler ; .arch x64 ; movzx eax, al),
            Width::B1 => dynasm!(self.assembler ; .arch x64 ; and eax, 1),
        }
    }

    /// Extends the sign of what `rax` has in a width.
    fn sign(&mut self, width: Width) {
        match width {
            Width::B64 => {}
            Width::B32 => dynasm!(self.assembler ; .arch x64 ; movsxd rax, eax),
            Width::B16 => dynasm!(self.assembler ; .arch x64 ; movsx rax, ax),
            Width::B8 => dynasm!(self.assembler ; .arch x64 ; movsx rax, al),
            Width::B1 => dynasm!(self.assembler ; .arch x64 ; and eax, 1 ; neg rax),
        }
    }

    /// `rax` is the result, which is cut to the width if need be.
    fn finish(&mut self, op: &Predecoded, cut: bool) {
        if cut {
            self.cut(op.width);
        }
        dynasm!(self.assembler ; .arch x64 ; mov [rbx + i32::from(op.dst) * 8], rax);
        self.rax = Some(op.dst);
    }

    /// A label to leave by.
    fn exit(&mut self, exit: Exit) -> DynamicLabel {
        let label = self.assembler.new_dynamic_label();
        self.stubs.push((label, exit));
        label
    }

    /// A label to leave by at an operation behind which nothing goes on here.
    fn exit_at(&mut self, at: usize) -> DynamicLabel {
        self.exit(Exit::Operation { block: self.at as u32, at: at as u32, resume: None })
    }

    /// A label to leave by at an operation, and what [`Template::go_on`] is told behind it.
    fn exit_to_resume(&mut self, at: usize) -> (DynamicLabel, Resume) {
        let resume = Resume(self.resumes.len() as u32);
        self.resumes.push(0);
        let exit = Exit::Operation { block: self.at as u32, at: at as u32, resume: Some(resume) };
        (self.exit(exit), resume)
    }

    /// Here the code goes on behind an operation that was executed otherwise.
    fn go_on(&mut self, resume: Resume) {
        let label = self.assembler.new_dynamic_label();
        dynasm!(self.assembler ; .arch x64 ; =>label);
        self.behind.push((resume, label, self.rax));
    }

    /// A label at which the run goes on at an address.
    fn way_to(&mut self, to: u64) -> DynamicLabel {
        match self.places.get(&(self.blocks[self.at].group, to)) {
            Some(&block) => self.labels[block],
            None => self.exit(Exit::Next { block: self.at as u32, to }),
        }
    }

    /// Emits the exits of the block, and the ways back into it.
    fn leave_by(&mut self, leave: DynamicLabel) {
        for (resume, label, rax) in std::mem::take(&mut self.behind) {
            self.resumes[resume.0 as usize] = self.assembler.offset().0;
            if let Some(slot) = rax {
                dynasm!(self.assembler ; .arch x64 ; mov rax, [rbx + i32::from(slot) * 8]);
            }
            dynasm!(self.assembler ; .arch x64 ; jmp =>label);
        }
        for (label, exit) in std::mem::take(&mut self.stubs) {
            let number = self.exits.len() as i32;
            self.exits.push(exit);
            dynasm!(self.assembler ; .arch x64 ; =>label ; mov eax, number ; jmp =>leave);
        }
    }

    fn block(&mut self) {
        let source = self.blocks[self.at];
        let (label, begin) = (self.labels[self.at], self.exit(Exit::Begin { block: self.at as u32 }));
        let (fuel, count) = (source.ops.len() as i32 + 1, source.instructions.cast_signed());
        let (looks, back) = (self.assembler.new_dynamic_label(), self.assembler.new_dynamic_label());
        dynasm!(self.assembler ; .arch x64 ; =>label);
        self.rax = None;
        match i32::try_from(source.start.cast_signed()) {
            Ok(start) => dynasm!(self.assembler ; .arch x64 ; cmp QWORD [r12 + LOOK_AT], start),
            Err(_) => dynasm!(self.assembler ; .arch x64
                ; mov rdx, QWORD source.start.cast_signed()
                ; cmp [r12 + LOOK_AT], rdx
            ),
        }
        dynasm!(self.assembler
            ; .arch x64
            ; je =>looks
            ; =>back
            ; mov rax, [r12 + SEEN]
            ; inc rax
            ; cmp rax, [r12 + NEXT]
            ; jae =>begin
            ; mov rcx, [r12 + USED]
            ; add rcx, fuel
            ; cmp rcx, [r12 + DUE]
            ; ja =>begin
            ; mov [r12 + SEEN], rax
            ; mov [r12 + USED], rcx
            ; add QWORD [r12 + INSTRUCTIONS], count
        );
        if source.marked {
            dynasm!(self.assembler ; .arch x64 ; mov QWORD [r12 + MARKED], 1);
        }
        self.operations(source);
        let same = self.same;
        dynasm!(self.assembler ; .arch x64 ; =>looks ; call =>same ; je =>begin ; jmp =>back);
    }

    fn operations(&mut self, source: Source<'_>) {
        for (at, op) in source.ops.iter().enumerate() {
            match op.kind {
                Kind::BranchIf => self.branch(op, at),
                Kind::Jump => return self.jump(op.a),
                Kind::Call => return self.call(op, at),
                Kind::Ret => return self.ret(op, at),
                Kind::Load => self.load_memory(op, at),
                Kind::Store => self.store_memory(op, at),
                kind if kind.class() == Class::Pure => self.pure(op, at),
                _ => {
                    let (label, resume) = self.exit_to_resume(at);
                    dynasm!(self.assembler ; .arch x64 ; jmp =>label);
                    self.rax = None;
                    self.go_on(resume);
                }
            }
        }
        if let Some((condition, to)) = source.branch {
            let label = self.way_to(to);
            self.branch_to(condition, label);
        }
        let label = self.way_to(source.next);
        dynasm!(self.assembler ; .arch x64 ; jmp =>label);
    }
}
