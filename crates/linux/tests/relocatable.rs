//! Modules that the assembler makes, linked with a kernel that the linker makes: what their objects
//! have to be.

mod support;

use ir::relocatable::{Field, Form, LoadSite, LoadSiteKind, Object, Replacement, Symbol};
use virtuoso_linux::{Exports, Linker, Module, own};

use support::cc;

/// A kernel that lends `printk`, which is code, and `this_cpu`, which is a place in per-CPU memory.
const KERNEL: &str = r#"
    .text
    .globl _start
_start: nop
printk: ret
    .set this_cpu, 0x18
    .section __ksymtab, "a"
    .long printk - ., name1 - ., 0
    .section __ksymtab_gpl, "a"
    .long this_cpu - ., name2 - ., 0
    .section __ksymtab_strings, "aMS", @progbits, 1
name1: .asciz "printk"
name2: .asciz "this_cpu"
"#;

/// A module with every kind of field and site.
const DISK: &str = r#"
    .text
    .globl disk_read
disk_read:
    call __fentry__
    call printk
    mov $table+8, %REGISTER
    lock incl (%REGISTER)
1:  .byte NOP
2:  call journal_start
    call nowhere
    jmp cold
3:  nop
    nop
    .section .text.unlikely, "ax"
    nop
cold: ret
    .section .init.text, "ax"
    call printk
    .data
    .quad 0
table: .quad 0, 0
    .section __mcount_loc, "a"
    .WORD disk_read
    .section .smp_locks, "a"
    .long 1b - 3 - .
    .section __jump_table, "aw"
    .long 1b - ., cold - .
    .WORD 0
    .section .altinstructions, "a"
    .long 3b - ., replacement - .
    .long 0
    .byte 2, 1
    .long 3b + 1 - ., replacement - .
    .long 0
    .byte 1, 1
    .section .altinstr_replacement, "ax"
replacement: nop
    .section __ksymtab, "a"
__ksymtab_disk_read:
    .long disk_read - ., 0, 0
"#;

const JOURNAL: &str = r#"
    .text
    .byte 0x90, 0x90, 0x90
    .globl journal_start
journal_start:
    call disk_read
    ret
    .globl private
private: ret
    .section __ksymtab_gpl, "a"
__ksymtab_journal_start:
    .long journal_start - ., 0, 0
"#;

/// A kernel that writes into its own code; 20 functions of which the last bytes are switched.
const PATCHED: &str = r#"
    .text
    .globl _start
_start: lock incl (%REGISTER)
1:  call _start
2:  nop
    nop
    nop
    nop
    nop
3:
    .rept 20
    .byte NOP
    ret
    .endr
4:  jmp 5f
5:  ret
    .section .altinstr_replacement, "ax"
6:  call 5b
7:  jmp 5b
8:
    .section .altinstructions, "a"
    .long 1b - ., 6b - .
    ENTRY 5, 5
    .long 2b - ., 7b - .
    ENTRY 5, 8b - 7b
    .long 1b - ., 8b - .
    ENTRY 5, 0
    .section .smp_locks, "a"
    .long _start - .
    .section .rodata, "a"
    .long 3b - ., 0, 0
    .altmacro
    .set i, 0
    .rept 20
    .long 3b + 6 * i - ., 3b + 6 * i + 5 - .
    .WORD 0
    .set i, i + 1
    .endr
    .long 4b - ., 5b - .
    .WORD 0
    .long 4b - ., 5b + 1 - .
    .WORD 0
"#;

#[test]
fn the_kernel_s_own_tables_say_what_it_may_write() {
    // The feature of an alternative has two bytes or four; at a time there was padding.
    for (bits, entry) in
        [("-m64", ".short 0; .byte"), ("-m32", ".short 0; .byte"), ("-m64", ".long 0; .byte")]
    {
        let (register, word) = if bits == "-m64" { ("rdi", ".quad") } else { ("edi", ".long") };
        let source = PATCHED.replace("REGISTER", register).replace(".WORD", word).replace("ENTRY", entry);
        let source = source.replace("NOP", nop(bits));
        let link = [bits, "-nostdlib", "-static", "-no-pie", "-Wl,-Ttext=0x1000000"];
        let kernel = cc(&source, &link);
        let sites = own(&kernel, &ir::System::default()).sites;
        let text = 0x100_0000;
        assert_eq!(sites.len(), 1 + 3 + 21, "{bits} {entry}: {sites:x?}");
        let forms = |address: u64| {
            let at = sites.iter().filter(|site| site.address == text + address);
            at.flat_map(|site| site.forms.clone()).collect::<Vec<_>>()
        };
        assert_eq!(forms(0), [[0xf0], [0x3e]]);
        // What replaces a call leads where it was linked to, from the place that it is copied to.
        let old = vec![0xe8, 0xf8, 0xff, 0xff, 0xff];
        assert_eq!(forms(3), [old.clone(), vec![0xe8, 0x7f, 0, 0, 0], old, vec![]]);
        let jump = vec![0xe9, 0x7a, 0, 0, 0];
        assert_eq!(forms(8), [vec![0x90; 5], vec![0xeb, 0x7d], jump]);
        assert_eq!(forms(13), [vec![0xe9, 0, 0, 0, 0], vec![]]);
        assert_eq!(forms(133), [vec![0xeb, 0], vec![]], "the entry behind it leads elsewhere");
    }
}

/// What stands for a jump: another no-operation in 32-bit kernels.
fn nop(bits: &str) -> &'static str {
    if bits == "-m64" { "0x0f, 0x1f, 0x44, 0, 0" } else { "0x3e, 0x8d, 0x74, 0x26, 0" }
}

fn linked(bits: &str) -> (Exports, Vec<Object>) {
    let kernel = cc(KERNEL, &[bits, "-nostdlib", "-static", "-no-pie", "-Wl,-Ttext=0x1000000"]);
    let kernel = Exports::read(&kernel).expect("a table of symbols");
    let (register, word) = if bits == "-m64" { ("rdi", ".quad") } else { ("edi", ".long") };
    let mut linker = Linker::default();
    for (name, source) in [("disk", DISK), ("journal", JOURNAL)] {
        let source = source.replace("REGISTER", register).replace(".WORD", word).replace("NOP", nop(bits));
        let object = cc(&source, &[bits, "-c"]);
        assert!(linker.add(&Module { name: name.to_string(), object }));
    }
    assert!(!linker.add(&Module { name: "text".to_string(), object: b"no module".to_vec() }));
    let objects = linker.link(&kernel);
    (kernel, objects)
}

fn section(object: &Object, name: &str) -> u16 {
    object.sections.iter().position(|section| section.name == name).expect("the section") as u16
}

/// What a field at an offset of a section names, how, and what is added.
fn field(object: &Object, name: &str, offset: u32) -> (Symbol, Form, i64) {
    let section = section(object, name);
    let is_it = |it: &&Field| (it.section, it.offset) == (section, offset);
    let field =
        object.fields.iter().find(is_it).unwrap_or_else(|| panic!("{name}+{offset}: {:?}", object.fields));
    (object.symbols[usize::from(field.symbol)], field.form, field.addend)
}

#[test]
fn a_kernel_lends_symbols_that_move_and_constants() {
    let (kernel, _) = linked("-m64");
    assert_eq!(kernel.text.0, 0x100_0000);
    assert_eq!(kernel.get("printk"), Some(Symbol::System(0x100_0001)));
    assert_eq!(kernel.get("this_cpu"), Some(Symbol::Constant(0x18)));
    assert_eq!((kernel.get("private"), kernel.len()), (None, 2));
    assert!(Exports::read(b"\x7fELF").is_none());
}

#[test]
fn fields_name_sections_of_every_module_and_the_kernel() {
    for bits in ["-m64", "-m32"] {
        let (_, objects) = linked(bits);
        let (disk, journal) = (&objects[0], &objects[1]);
        let wide = bits == "-m64";
        // The call of __fentry__, which the kernel does not lend here, has the first five bytes.
        assert_eq!(field(disk, ".text", 1), (Symbol::Unknown, Form::Relative32, -4));
        assert_eq!(field(disk, ".text", 6), (Symbol::System(0x100_0001), Form::Relative32, -4));
        let data = Symbol::Own(section(disk, ".data"));
        let (at, form) = if wide { (13, Form::Signed32) } else { (11, Form::Word32) };
        assert_eq!(field(disk, ".text", at), (data, form, 16), "8 bytes before the table, 8 in it");
        let call = if wide { 26 } else { 24 };
        let other = Symbol::Other { object: 1, section: section(journal, ".text") };
        assert_eq!(field(disk, ".text", call), (other, Form::Relative32, 3 - 4));
        assert_eq!(field(disk, ".text", call + 5).0, Symbol::Unknown, "nobody exports it");
        let cold = Symbol::Own(section(disk, ".text.unlikely"));
        assert_eq!(field(disk, ".text", call + 10), (cold, Form::Relative32, 1 - 4));
        assert_eq!(field(journal, ".text", 4).0, Symbol::Other { object: 0, section: 0 });
        let init = &disk.sections[usize::from(section(disk, ".init.text"))];
        assert!(!init.is_code && init.size == 5, "it is dropped after loading");
        assert!(disk.fields.iter().all(|it| it.section != section(disk, ".init.text")));
        // What it exports has to be said by a table, too.
        assert_eq!(journal.sections[usize::from(section(journal, ".text"))].code.len(), 10);
    }
}

#[test]
fn sites_are_where_the_module_s_tables_say() {
    for bits in ["-m64", "-m32"] {
        let (_, objects) = linked(bits);
        let disk = &objects[0];
        let (text, cold) = (section(disk, ".text"), section(disk, ".text.unlikely"));
        let lock = if bits == "-m64" { 17 } else { 15 };
        let site = |offset, len, kind| LoadSite { section: text, offset, len, kind };
        let expected = [
            site(0, 5, LoadSiteKind::Same),
            site(lock, 1, LoadSiteKind::Same),
            site(lock + 3, 5, LoadSiteKind::Jump { section: cold, offset: 1 }),
            // Two alternatives that overlap are one.
            site(lock + 23, 2, LoadSiteKind::Same),
        ];
        assert_eq!(disk.sites, expected, "{bits}");
        assert_eq!(disk.sections[usize::from(text)].code[lock as usize], 0xf0);
        let replacement = |offset, len| Replacement {
            section: text,
            offset,
            len,
            from_section: section(disk, ".altinstr_replacement"),
            from_offset: 0,
            from_len: 1,
        };
        assert_eq!(disk.replacements, [replacement(lock + 23, 2), replacement(lock + 24, 1)], "{bits}");
        let file = ir::Objects::to_bytes(
            [1; 32],
            &objects,
            &ir::relocatable::Own::default(),
            &ir::relocatable::Decisions::default(),
        )
        .unwrap();
        let back = ir::Objects::from_bytes(&file, [1; 32]).unwrap();
        assert_eq!((back.object(0), back.object(1)), (Some(&objects[0]), Some(&objects[1])));
    }
}
