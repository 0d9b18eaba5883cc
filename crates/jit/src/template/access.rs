//! Accesses of memory that the TLB has.

use std::mem::{offset_of, size_of};

use dynasmrt::{DynamicLabel, DynasmApi, DynasmLabelApi, dynasm};

use super::{R8, RAX, STATE, TLB, Template};
use crate::memory::{ENTRIES, Entry, KEYS};
use crate::operation::Predecoded;

const READ: i32 = TLB + offset_of!(Entry, read) as i32;
const WRITE: i32 = TLB + offset_of!(Entry, write) as i32;
const ADDEND: i32 = TLB + offset_of!(Entry, addend) as i32;
const PLACE: i32 = TLB + offset_of!(Entry, place) as i32;
/// An entry's offset in the TLB is the page number times this: the address shifted by less.
const ENTRY_SHIFT: i8 = 12 - size_of::<Entry>().trailing_zeros() as i8;
const ENTRY_MASK: i32 = ((ENTRIES - 1) * size_of::<Entry>()) as i32;

impl Template<'_> {
    /// `rax` has an address: `rcx` becomes the offset of its entry in the TLB. Leaves unless the
    /// entry, by the tag at `tag`, has the page of the byte `last` behind the address too.
    fn find(&mut self, tag: i32, last: i32, exit: DynamicLabel) {
        dynasm!(self.assembler
            ; .arch x64
            ; mov rcx, rax
            ; shr rcx, ENTRY_SHIFT
            ; and ecx, ENTRY_MASK
            ; lea rdx, [rax + last]
            ; and rdx, -4096
            ; cmp rdx, [r13 + rcx + tag]
            ; jne =>exit
        );
    }

    pub(super) fn load_memory(&mut self, op: &Predecoded, at: usize) {
        let (exit, resume) = self.exit_to_resume(at);
        self.load(RAX, op.a);
        self.find(READ, op.width.bytes() as i32 - 1, exit);
        dynasm!(self.assembler ; .arch x64 ; add rax, [r13 + rcx + ADDEND]);
        match op.width.bytes() {
            8 => dynasm!(self.assembler ; .arch x64 ; mov rax, [rax]),
            4 => dynasm!(self.assembler ; .arch x64 ; mov eax, [rax]),
            2 => dynasm!(self.assembler ; .arch x64 ; movzx eax, WORD [rax]),
            _ => dynasm!(self.assembler ; .arch x64 ; movzx eax, BYTE [rax]),
        }
        self.finish(op, false);
        self.go_on(resume);
    }

    /// As `Memory::store`.
    pub(super) fn store_memory(&mut self, op: &Predecoded, at: usize) {
        let (exit, resume) = self.exit_to_resume(at);
        let size = op.width.bytes() as i32;
        self.load(R8, op.b);
        self.load(RAX, op.a);
        self.rax = None;
        self.find(WRITE, 0, exit);
        // rdx: the address's offset in its word.
        dynasm!(self.assembler ; .arch x64 ; mov edx, eax ; and edx, 7);
        match size {
            1 => {}
            8 => dynasm!(self.assembler ; .arch x64 ; jnz =>exit),
            _ => dynasm!(self.assembler ; .arch x64 ; cmp edx, 8 - size ; ja =>exit),
        }
        // rsi: the word's address; rdi: its place.
        dynasm!(self.assembler
            ; .arch x64
            ; mov rsi, rax
            ; and rsi, -8
            ; mov edi, esi
            ; and edi, 4095
            ; add rdi, [r13 + rcx + PLACE]
            ; add rsi, [r13 + rcx + ADDEND]
            ; mov r9, [rsi]
        );
        if size < 8 {
            // r8 becomes the whole word.
            let mask = (u64::MAX >> (64 - 8 * size)).cast_signed();
            dynasm!(self.assembler
                ; .arch x64
                ; lea ecx, [rdx * 8]
                ; mov r10, QWORD mask
                ; and r8, r10
                ; shl r8, cl
                ; shl r10, cl
                ; not r10
                ; and r10, r9
                ; or r8, r10
            );
        }
        dynasm!(self.assembler
            ; .arch x64
            ; mov [rsi], r8
            ; sub r8, r9
            ; mov rax, QWORD KEYS[0].cast_signed()
            ; imul rdi, rax
            ; rol rdi, 32
            ; mov rax, QWORD KEYS[1].cast_signed()
            ; imul rdi, rax
            ; or rdi, 1
            ; imul rdi, r8
            ; add [r13 + STATE], rdi
        );
        self.go_on(resume);
    }
}
