//! Static calls of modules that the assembler makes: which functions trusted code makes them lead
//! to.

mod support;

use ir::relocatable::{Object, Symbol};
use support::cc;
use virtuoso_linux::{Exports, Linker, Module};

/// A kernel that lends what makes a static call lead elsewhere, and a function that returns 0.
const KERNEL: &str = r#"
    .text
    .globl _start
_start: nop
update: ret
zero: ret
    .section __ksymtab, "a"
    .long update - ., name1 - ., 0
    .long zero - ., name2 - ., 0
    .section __ksymtab_strings, "aMS", @progbits, 1
name1: .asciz "__static_call_update"
name2: .asciz "__static_call_return0"
"#;

/// A module with static calls: A is a field of a table, B a function, C another field or what
/// returns 0, which a register has that calls keep. Of D and E nothing is known: D's function comes
/// out of another register that a call does not keep, E has the key of another one.
const OWNER: &str = r#"
    .text
    .type first, @function
first: ret
    .type second, @function
second: ret
    .globl owner_register
    .type owner_register, @function
owner_register:
    mov FIELD1, %THIRD
    mov $__SCT__a, %SECOND
    mov $__SCK__a, %FIRST
    mov $__static_call_return0, %KEPT
    call __static_call_update
    mov $second, %THIRD
    mov $__SCT__b, %SECOND
    mov $__SCK__b, %FIRST
    call __static_call_update
    mov FIELD2, %THIRD
    mov $__SCK__c, %FIRST
    mov $__SCT__c, %SECOND
    test %THIRD, %THIRD
    cmove %KEPT, %THIRD
    call __static_call_update
    mov $__SCT__d, %SECOND
    mov $__SCK__d, %FIRST
    call __static_call_update
    mov $second, %THIRD
    mov $__SCT__e, %SECOND
    mov $__SCK__d, %FIRST
    call __static_call_update
    ret
    .type other, @function
other:
    mov FIELD2, %THIRD
    mov $__SCT__d, %SECOND
    mov $__SCK__d, %FIRST
    cmove %KEPT, %THIRD
    call __static_call_update
    ret
    .section .static_call.text, "ax"
    .irp name, a, b, c, d, e
    .globl __SCT__\name
__SCT__\name: jmp first
    .byte 0x0f, 0xb9, 0xcc
    .endr
    .bss
    .irp name, a, b, c, d, e
    .globl __SCK__\name
__SCK__\name: .zero 16
    .endr
    .type table, @object
    .size table, 96
table: .zero 96
    .section __ksymtab, "a"
__ksymtab_owner_register:
    .long owner_register - ., 0, 0
"#;

/// A module that fills the owner's table, by one that is dropped; another has no such size.
const USER: &str = r#"
    .text
    call owner_register
theirs: ret
    nop
last: ret
    .section .init.data, "aw"
    .type table, @object
    .size table, 96
table:
    .zero 16
    .WORD theirs, last
    .zero 80 - 2 * WIDTH
    .type larger, @object
    .size larger, 104
larger:
    .zero 16
    .WORD last
    .zero 88 - WIDTH
"#;

/// A module that has a table of the same size, and nothing to do with the owner.
const STRANGER: &str = r#"
    .text
    nop
strange: ret
    .data
    .type table, @object
    .size table, 96
table:
    .zero 16
    .WORD strange, strange
    .zero 80 - 2 * WIDTH
"#;

fn linked(bits: &str) -> Vec<Object> {
    let wide = bits == "-m64";
    let kernel = cc(KERNEL, &[bits, "-nostdlib", "-static", "-no-pie", "-Wl,-Ttext=0x1000000"]);
    let kernel = Exports::read(&kernel).expect("a table of symbols");
    let words = if wide {
        [
            ("FIELD1", "table+16(%rip)"),
            ("FIELD2", "table+24(%rip)"),
            ("FIRST", "rdi"),
            ("SECOND", "rsi"),
            ("THIRD", "rdx"),
            ("KEPT", "r12"),
            (".WORD", ".quad"),
            ("WIDTH", "8"),
        ]
    } else {
        [
            ("FIELD1", "table+16"),
            ("FIELD2", "table+20"),
            ("FIRST", "eax"),
            ("SECOND", "edx"),
            ("THIRD", "ecx"),
            ("KEPT", "ebx"),
            (".WORD", ".long"),
            ("WIDTH", "4"),
        ]
    };
    let mut linker = Linker::default();
    for (name, source) in [("owner", OWNER), ("user", USER), ("stranger", STRANGER)] {
        let source = words.iter().fold(source.to_string(), |source, (from, to)| source.replace(from, to));
        assert!(linker.add(&Module { name: name.to_string(), object: cc(&source, &[bits, "-c"]) }));
    }
    linker.link(&kernel)
}

#[test]
fn a_static_call_leads_to_what_trusted_code_gives_it() {
    for bits in ["-m64", "-m32"] {
        let objects = linked(bits);
        let owner = &objects[0];
        let functions = |number: usize| {
            let all = owner.trampolines[number].functions.iter();
            all.map(|(symbol, addend)| (owner.symbols[usize::from(*symbol)], *addend)).collect::<Vec<_>>()
        };
        let section = |object: &Object, name: &str| {
            object.sections.iter().position(|it| it.name == name).expect("the section") as u16
        };
        let places = owner.trampolines.iter().map(|it| (it.section, it.offset));
        let code = section(owner, ".static_call.text");
        assert_eq!(places.collect::<Vec<_>>(), (0..5).map(|number| (code, number * 8)).collect::<Vec<_>>());
        assert!(objects[1..].iter().all(|it| it.trampolines.is_empty()));
        // The user's call has five bytes.
        let theirs = |offset| (Symbol::Other { object: 1, section: section(&objects[1], ".text") }, offset);
        assert_eq!(functions(0), [theirs(5)], "{bits}");
        assert_eq!(functions(1), [(Symbol::Own(section(owner, ".text")), 1)], "{bits}");
        let mut either = functions(2);
        either.sort_by_key(|it| it.1);
        assert_eq!(either, [(Symbol::System(0x100_0002), 0), theirs(7)], "{bits}");
        // In the other function nobody knows what the register has that calls keep.
        assert_eq!(functions(3), [theirs(7)], "{bits}");
        assert_eq!(functions(4), [], "{bits}");
        // A trampoline is a place that the kernel writes.
        let sites = owner.sites.iter().filter(|it| it.section == code).map(|it| (it.offset, it.len));
        assert_eq!(sites.collect::<Vec<_>>(), [(0, 5), (8, 5), (16, 5), (24, 5), (32, 5)], "{bits}");
    }
}
