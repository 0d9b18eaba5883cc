//! Where control goes: branches, jumps, calls and returns.

use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};
use machine::Reg;

use super::{CALLS, OPEN, Operand, RAX, RETURNED, ROOM, Template};
use crate::calls::POPPED;
use crate::operation::Predecoded;
use crate::progress::{DYNAMIC, Exit};

const STACK: i32 = Reg::Rsp as i32 * 8;
const PRIVILEGE: i32 = Reg::Cpl as i32 * 8;

impl Template<'_> {
    pub(super) fn branch(&mut self, op: &Predecoded, at: usize) {
        let label = match self.operand(op.b) {
            Operand::Value(to) => self.way_to(to),
            Operand::Slot(_) => self.exit_at(at),
        };
        self.branch_to(op.a, label);
    }

    /// Goes on at a label if the value of a slot is not 0.
    pub(super) fn branch_to(&mut self, condition: u16, label: DynamicLabel) {
        match (self.operand(condition), self.rax == Some(condition)) {
            (_, true) => dynasm!(self.assembler ; .arch x64 ; test rax, rax ; jnz =>label),
            (Operand::Slot(slot), false) => {
                dynasm!(self.assembler ; .arch x64 ; cmp QWORD [rbx + slot], 0 ; jne =>label);
            }
            (Operand::Value(0), false) => {}
            (Operand::Value(_), false) => dynasm!(self.assembler ; .arch x64 ; jmp =>label),
        }
    }

    /// Goes on at the address in a slot.
    pub(super) fn jump(&mut self, slot: u16) {
        if let Operand::Value(to) = self.operand(slot) {
            let label = self.way_to(to);
            dynasm!(self.assembler ; .arch x64 ; jmp =>label);
            return;
        }
        self.load(RAX, slot);
        let number = self.exits.len() as i32;
        self.exits.push(Exit::Next { block: self.at as u32, to: DYNAMIC });
        let way = self.groups[&self.blocks[self.at].group].1;
        dynasm!(self.assembler ; .arch x64 ; mov esi, number ; jmp =>way);
    }

    /// As `Calls::called`, where there is room.
    pub(super) fn call(&mut self, op: &Predecoded, at: usize) {
        let exit = self.exit_at(at);
        dynasm!(self.assembler
            ; .arch x64
            ; mov rcx, [r12 + OPEN]
            ; cmp rcx, [r12 + ROOM]
            ; jae =>exit
            ; mov rdx, [r12 + CALLS]
            ; mov rsi, [rbx + STACK]
            ; mov [rdx + rcx * 8], rsi
            ; inc rcx
            ; mov [r12 + OPEN], rcx
        );
        self.jump(op.a);
    }

    /// As `Calls::returned`, where it is the innermost call that is returned from, by a return that
    /// stays in the system.
    pub(super) fn ret(&mut self, op: &Predecoded, at: usize) {
        let exit = self.exit_at(at);
        dynasm!(self.assembler
            ; .arch x64
            ; mov rcx, [r12 + OPEN]
            ; sub rcx, 1
            ; jc =>exit
            ; cmp QWORD [rbx + PRIVILEGE], 3
            ; je =>exit
            ; mov rdx, [r12 + CALLS]
            ; mov rsi, [rbx + STACK]
            ; mov rdx, [rdx + rcx * 8]
            ; cmp rdx, rsi
            ; jae =>exit
            ; sub rsi, rdx
            ; cmp rsi, POPPED as i32
            ; jae =>exit
            ; mov [r12 + OPEN], rcx
            ; mov QWORD [r12 + RETURNED], 1
        );
        self.jump(op.a);
    }
}
