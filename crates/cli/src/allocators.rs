//! Names of allocator functions, and how compilers call them.
//!
//! The analysis and the runtime know neither: what they get is an address, an action, and where its
//! arguments are.

use ir::Var;
use ir::summary::{Action, ArgumentLocation, Summary};
use machine::Reg;

/// A calling convention, as far as arguments are concerned that are integers or pointers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Convention {
    /// 64-bit code of Unix systems (System V AMD64 ABI 3.2.3).
    SystemV64,
    /// 64-bit code of Windows.
    Microsoft64,
    /// 32-bit C functions (System V i386 ABI 2.2.3, and Windows).
    Cdecl,
    /// 32-bit Windows: the function takes its arguments off the stack.
    Stdcall,
}

impl Convention {
    /// Where the argument `n` is, counted from 0. In 64-bit code `n` is at most 3: the first four
    /// arguments are in registers, those after them are not known here.
    fn location(self, n: usize) -> ArgumentLocation {
        let register = |of: [Reg; 4]| ArgumentLocation::Register(Var(of[n] as u16));
        match self {
            Convention::SystemV64 => register([Reg::Rdi, Reg::Rsi, Reg::Rdx, Reg::Rcx]),
            Convention::Microsoft64 => register([Reg::Rcx, Reg::Rdx, Reg::R8, Reg::R9]),
            Convention::Cdecl | Convention::Stdcall => ArgumentLocation::Stack(4 * (n as u16 + 1)),
        }
    }

    /// A function of `count` arguments whose action has those numbered `args`.
    fn function(self, action: Action, count: u16, args: &[usize]) -> Summary {
        let mut locations = [Summary::NO_ARG; 2];
        for (location, &n) in locations.iter_mut().zip(args) {
            *location = self.location(n);
        }
        let pops = if self == Convention::Stdcall { 4 * count } else { 0 };
        Summary { action, args: locations, pops, fails: None }
    }
}

/// What a C library's function of this name does; none if it is no allocator.
#[must_use]
pub fn of_c(name: &str, convention: Convention) -> Option<Summary> {
    Some(match name {
        "malloc" | "__libc_malloc" => convention.function(Action::Malloc, 1, &[0]),
        "calloc" | "__libc_calloc" => convention.function(Action::Calloc, 2, &[0, 1]),
        "realloc" | "__libc_realloc" => convention.function(Action::Realloc, 2, &[0, 1]),
        "free" | "__libc_free" => convention.function(Action::Free, 1, &[0]),
        _ => return None,
    })
}

/// A function that a Windows program imports by this name: the C library's, or the heap's, by the
/// names of kernel32 or ntdll.
#[must_use]
pub fn of_windows(name: &str, wide: bool) -> Option<Summary> {
    /// `HEAP_REALLOC_IN_PLACE_ONLY`, a flag: the second argument.
    const IN_PLACE: u32 = 0x10;
    let (c, system) = if wide {
        (Convention::Microsoft64, Convention::Microsoft64)
    } else {
        (Convention::Cdecl, Convention::Stdcall)
    };
    Some(match name {
        "HeapAlloc" | "RtlAllocateHeap" => system.function(Action::Malloc, 3, &[2]),
        "HeapFree" | "RtlFreeHeap" => system.function(Action::Release, 3, &[2]),
        "HeapReAlloc" | "RtlReAllocateHeap" => {
            let fails = Some((system.location(1), IN_PLACE));
            Summary { fails, ..system.function(Action::Realloc, 4, &[2, 3]) }
        }
        _ => return of_c(name, c),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_where_the_conventions_say() {
        let register = |reg: Reg| ArgumentLocation::Register(Var(reg as u16));
        let none = Summary::NO_ARG;
        let of = |summary: Option<Summary>| summary.map(|it| (it.action, it.args, it.pops, it.fails));
        let unix = of_c("calloc", Convention::SystemV64);
        assert_eq!(of(unix), Some((Action::Calloc, [register(Reg::Rdi), register(Reg::Rsi)], 0, None)));
        assert_eq!(
            of(of_windows("malloc", true)),
            Some((Action::Malloc, [register(Reg::Rcx), none], 0, None))
        );
        assert_eq!(
            of(of_windows("free", false)),
            Some((Action::Free, [ArgumentLocation::Stack(4), none], 0, None))
        );
        assert_eq!(
            of(of_windows("HeapAlloc", true)),
            Some((Action::Malloc, [register(Reg::R8), none], 0, None))
        );
        assert_eq!(
            of(of_windows("HeapAlloc", false)),
            Some((Action::Malloc, [ArgumentLocation::Stack(12), none], 12, None))
        );
        let grown = Some((
            Action::Realloc,
            [ArgumentLocation::Stack(12), ArgumentLocation::Stack(16)],
            16,
            Some((ArgumentLocation::Stack(8), 0x10)),
        ));
        assert_eq!(of(of_windows("RtlReAllocateHeap", false)), grown);
        assert_eq!(
            of(of_windows("HeapFree", false)),
            Some((Action::Release, [ArgumentLocation::Stack(12), none], 12, None))
        );
        assert_eq!(of_windows("HeapSize", true), None);
    }
}
