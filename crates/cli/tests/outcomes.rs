//! Every way the command can end is reached here through the command itself, and
//! `docs/exit-codes.md` says what to do about each.
//!
//! The lists are closed: an exit code, a stop or an error that is added without a case or a
//! sentence fails to compile or fails a test. A code for bugs of ours (70) cannot be reached from
//! outside; its test lies beside the code that gives it.

#![forbid(unsafe_code)]

#[allow(dead_code, reason = "shared with other tests, which need more of it")]
mod support;

use std::collections::BTreeSet;

use engine::{InputError, RunError, Stopped, TooLarge};
use ir::program::{PageContent, UserPage};
use ir::{Program, System};
use support::{Ended, Folder, Slice, companion, companion_name, program, target, trace};

/// Kernel memory of the 64-bit target: a 1 GiB page over all of its RAM.
const KERNEL: u64 = 0xffff_8000_0000_0000;
/// Where code of a whole run begins.
const CODE: u64 = 0x40_1000;

/// One way to end.
struct Case {
    code: i32,
    /// What the message says, cause and next step.
    says: &'static [&'static str],
    run: fn(&Folder) -> Ended,
}

/// Compares a page of code with a target's, in which it has changed so.
fn tampering(folder: &Folder, change: impl Fn(&mut [u8; 4096])) -> Ended {
    let mut system = System::default();
    let mut trusted: [u8; 4096] = std::array::from_fn(|at| (at % 251) as u8);
    trusted[200..205].copy_from_slice(&[0x0f, 0x1f, 0x44, 0x00, 0x00]);
    system.insert(KERNEL + 0x10_0000, &trusted);
    change(&mut trusted);
    large_target(folder, 0x10_0000, &trusted);
    let mut program = text("end");
    program.system = system.hash();
    // Execute-disable is on: page tables tell code from data.
    program.registers = vec![(machine::Reg::Cr4 as u16, 1 << 5), (machine::Reg::Efer as u16, 1 << 11)];
    folder.file("p.prog", program.to_bytes().expect("it encodes"));
    folder.file("code.system", system.to_bytes().expect("it encodes"));
    folder.virtuoso(&["tampering", "p.prog", "large.raw", "--system", "code.system"])
}

const fn case(code: i32, says: &'static [&'static str], run: fn(&Folder) -> Ended) -> Case {
    Case { code, says, run }
}

/// How each exit code that is no run's outcome is reached.
const COMMANDS: &[Case] = &[
    case(0, &[], |folder| run(folder, &program(&Slice::Right), &["--input", "n=1"])),
    case(1, &["input n is missing", "give --input"], |folder| run(folder, &program(&Slice::Right), &[])),
    case(2, &["--no-such-option"], |folder| folder.virtuoso(&["run", "--no-such-option"])),
    case(20, &["another kernel", "train on the target's kernel"], |folder| {
        let mut program = program(&Slice::Right);
        program.code.push(ir::program::CodeRange { addr: 0x100, bytes: vec![0xcc; 64] });
        run(folder, &program, &["--input", "n=1"])
    }),
    case(21, &["differ in: next"], |folder| {
        run(folder, &program(&Slice::Wrong), &["--input", "n=1", "--verify"])
    }),
    case(22, &[], |folder| {
        folder.file("bad.trace", trace(8));
        folder.virtuoso(&["trace", "check", "bad.trace"])
    }),
    case(23, &["not its own", "answers still come from trusted code"], |folder| {
        tampering(folder, |code| code[100..105].fill(0xcc))
    }),
    case(24, &["differ in 2 entries"], |folder| {
        folder.file("a.prog", program(&Slice::Right).to_bytes().expect("it encodes"));
        folder.file("b.prog", program(&Slice::Wrong).to_bytes().expect("it encodes"));
        let pair = "a.prog:next=b.prog:next";
        folder.virtuoso(&["crossview", target(folder), "--pair", pair, "--input", "n=1"])
    }),
    case(26, &["pids:u32[count<=2] is full", "a larger buffer"], |folder| {
        let text = "program \"list\"\nbits 32\nbegin 0x1000\noutput \"count\" u32 @0x2000\n\
                    output \"pids\" u32[field \"count\" max 2] @0x2010\npage 0x2000 zero\n\
                    function f0 0x1000 \"main\" {\nb0 @0x1000:\n store.32 0x2000, 2\n end\n}\n";
        let program = ir::text::parse_program(text, machine::Reg::NAMES).expect("it parses");
        run(folder, &program, &["--slice"])
    }),
    case(27, &["next is constant", "Every target would get this answer"], |folder| {
        folder.file("store.trace", trace(7));
        folder.virtuoso(&["build", "store.trace", "-o", "p.prog"])
    }),
    case(28, &["not everything was compared", "the report says what"], |folder| tampering(folder, |_| ())),
    case(30, &["nothing was recorded", "virtuoso_begin"], |folder| record(folder, &[LOADED], "exit 0", &[])),
    case(30, &["an end mark without a begin mark"], |folder| {
        let refused =
            r#"{"event":"error","kind":"unmatched_end","message":"an end mark without a begin mark"}"#;
        record(folder, &[LOADED, refused], "exit 0", &[])
    }),
    case(31, &["still running after 1 s", "raise --timeout"], |folder| {
        record(folder, &[LOADED], "exec sleep 30", &["--timeout", "1"])
    }),
    case(32, &["could not start the guest", "no such machine"], |folder| {
        record(folder, &[], "echo no such machine >&2; exit 1", &[])
    }),
    case(32, &["no-such-qemu", "install"], |folder| folder.virtuoso(&["record", "--", "./no-such-qemu"])),
    case(33, &["no training boot shows them", "train a guest with the target's settings"], |folder| {
        tampering(folder, |code| code[200..205].copy_from_slice(&[0xe9, 9, 0, 0, 0]))
    }),
    case(141, &[], |folder| {
        let mut long = program(&Slice::Right);
        let block = long.functions[0].blocks[0].clone();
        long.functions[0].blocks.extend(std::iter::repeat_n(block, 5000));
        folder.file("long.prog", long.to_bytes().expect("it encodes"));
        folder.virtuoso_unread(&["explain", "long.prog", "--full"])
    }),
];

/// What reaches a stop as a slice, and as a whole run. Where one of them is missing it cannot
/// happen there.
struct Stop {
    name: &'static str,
    code: i32,
    slice: Option<fn(&Folder) -> Ended>,
    whole: Option<fn(&Folder) -> Ended>,
}

const STOPS: &[Stop] = &[
    Stop {
        name: "unexplored",
        code: 10,
        slice: Some(|folder| slice(folder, "goto unexplored 0x1234")),
        // All trusted code may run.
        whole: None,
    },
    Stop {
        name: "overwritten",
        code: 10,
        slice: Some(|folder| {
            let read = "undefine.64 0xffff800000000010, 0x10\n rax = load.64 0xffff800000000008\n end";
            slice(folder, read)
        }),
        // It does itself what slices leave out.
        whole: None,
    },
    Stop {
        name: "out-of-fuel",
        code: 11,
        slice: Some(|folder| slice(folder, "rax = add.64 rax, 1\n goto b0")),
        whole: Some(|folder| whole(folder, &[0x48, 0xff, 0xc0, 0xeb, 0xfb])),
    },
    Stop {
        name: "out-of-time",
        code: 34,
        slice: Some(|folder| {
            slice(folder, "end");
            folder.file("p.prog", text("rax = add.64 rax, 1\n goto b0").to_bytes().expect("it encodes"));
            let limits = ["--max-time", "0.05", "--fuel", "0xffffffffffffffff"];
            folder.virtuoso(&[&["run", "p.prog", "large.raw", "--slice", "--json"], &limits[..]].concat())
        }),
        whole: Some(|folder| {
            whole(folder, &[0x48, 0xff, 0xc0, 0xeb, 0xfb]);
            let limits = ["--max-time", "0.05", "--fuel", "0xffffffffffffffff"];
            folder.virtuoso(&[&["run", "p.prog", "large.raw", "--whole", "--json"], &limits[..]].concat())
        }),
    },
    Stop {
        name: "unmapped",
        code: 12,
        slice: Some(|folder| slice(folder, "rax = load.64 0xffff900000000000\n end")),
        // mov 0xffff900000000000,%rax
        whole: Some(|folder| whole(folder, &[0x48, 0xa1, 0, 0, 0, 0, 0, 0x90, 0xff, 0xff])),
    },
    Stop {
        name: "needs-device",
        code: 13,
        slice: Some(|folder| slice(folder, "rax = in.8 0x60\n end")),
        whole: Some(|folder| whole(folder, &[0xe4, 0x60])),
    },
    // The same outcome; the answer depends on the counter, which nothing tells.
    Stop {
        name: "needs-device",
        code: 13,
        slice: Some(|folder| slice(folder, "rax = tsc.64\n store.64 0x5000, rax\n end")),
        // rdtsc; mov %eax,0x5000; the end mark.
        whole: Some(|folder| {
            let code = [0x0f, 0x31, 0x89, 0x04, 0x25, 0, 0x50, 0, 0, 0x0f, 0x1f, 0x80, 2, 0, 0x54, 0x56];
            whole(folder, &code)
        }),
    },
    Stop {
        name: "blocked",
        code: 14,
        slice: Some(|folder| slice(folder, "goto b0")),
        // A jump to itself: a lock that nobody gives back. `hlt` is the other way, see the engine's
        // tests.
        whole: Some(|folder| whole(folder, &[0xeb, 0xfe])),
    },
    Stop {
        name: "switched",
        code: 14,
        // A slice follows the trainer's own calls.
        slice: None,
        // sysretq without a call before it
        whole: Some(|folder| whole(folder, &[0x48, 0x0f, 0x07])),
    },
    Stop {
        name: "unrepeated",
        code: 25,
        // Training executed a slice's code to its end.
        slice: None,
        whole: Some(|folder| {
            let mut program = text("end");
            program.provenance.unrepeated = Some("blocked".into());
            // The end mark.
            run_whole(folder, program, &[0x0f, 0x1f, 0x80, 2, 0, 0x54, 0x56])
        }),
    },
    Stop {
        name: "exception",
        code: 15,
        slice: Some(|folder| slice(folder, "rax = div_u.32 0, 1, 0\n end")),
        // div %ecx, which is 0
        whole: Some(|folder| whole(folder, &[0xf7, 0xf1])),
    },
    Stop {
        name: "unsupported",
        code: 16,
        // The slicer makes no program of such an instruction.
        slice: None,
        whole: Some(|folder| whole(folder, &[0xd9, 0xe8])),
    },
    Stop {
        name: "no-code",
        code: 17,
        // A slice brings its code along.
        slice: None,
        // jmp far behind the page
        whole: Some(|folder| whole(folder, &[0xe9, 0, 0, 1, 0])),
    },
    Stop {
        name: "limit",
        code: 18,
        slice: Some(|folder| slice(folder, "call f0 stack rsp then return")),
        // add $0x10000,%rdx, past the page tables; movb $1,(%rdx); add $0x1000,%rdx; jmp: copies
        // page after page
        whole: Some(|folder| {
            let past = [0x48, 0x81, 0xc2, 0, 0, 1, 0];
            whole(
                folder,
                &[&past[..], &[0xc6, 0x02, 1, 0x48, 0x81, 0xc2, 0, 0x10, 0, 0, 0xeb, 0xf4]].concat(),
            )
        }),
    },
];

/// The name of a stop; no default, so that a new one must be given a name here and a row in
/// [`STOPS`].
const fn name(stopped: &Stopped) -> &'static str {
    match stopped {
        Stopped::Unexplored { .. } => "unexplored",
        Stopped::Overwritten { .. } => "overwritten",
        Stopped::OutOfFuel { .. } => "out-of-fuel",
        Stopped::OutOfTime { .. } => "out-of-time",
        Stopped::Unmapped { .. } => "unmapped",
        Stopped::NeedsDevice { .. } | Stopped::UnknownCounter { .. } => "needs-device",
        Stopped::Blocked { .. } => "blocked",
        Stopped::Switched { .. } => "switched",
        Stopped::Unrepeated { .. } => "unrepeated",
        Stopped::Exception { .. } => "exception",
        Stopped::Unsupported { .. } => "unsupported",
        Stopped::NoCode { .. } => "no-code",
        Stopped::Limit { .. } => "limit",
    }
}

/// How a run that cannot begin ends; no default, as above.
fn refusal(error: &RunError) -> Case {
    match error {
        RunError::Input(InputError::Unknown { .. }) => {
            case(1, &["no input named m", "the program's inputs: n"], |f| {
                run(f, &program(&Slice::Right), &["--input", "m=1"])
            })
        }
        RunError::Input(InputError::Missing { .. }) => {
            case(1, &["input n is missing", "--input n="], |f| run(f, &program(&Slice::Right), &[]))
        }
        RunError::Input(InputError::Value { .. }) => case(1, &["\"-1\" is no value", "between 0 and"], |f| {
            run(f, &program(&Slice::Right), &["--input", "n=-1"])
        }),
        RunError::TooLarge(_) => case(1, &["too many constants", "mark less work"], |f| {
            let constants: String = (0..70_000u32).map(|value| format!("rax = mov.64 {value}\n ")).collect();
            slice(f, &format!("{constants}end"))
        }),
        RunError::NoRegister(_) => case(1, &["kernel GS base", "--cpu-file"], |f| {
            large_target(f, 0, &[]);
            f.file(
                "cpus.json",
                r#"{"cpus": [{"rip": 0, "cr0": "0x80000011", "cr3": "0x1000", "cr4": "0x20"}]}"#,
            );
            f.file("p.prog", text("end").to_bytes().expect("it encodes"));
            f.virtuoso(&["run", "p.prog", "large.raw", "--cpu-file", "cpus.json"])
        }),
        // Readers of targets refuse such a processor before a run can.
        RunError::Paging(_) => case(1, &["processor 0 has no cr0"], |f| {
            f.file("p.prog", text("end").to_bytes().expect("it encodes"));
            target(f);
            f.file("cpus.json", r#"{"cpus": [{"rip": 0, "cr3": 0, "cr4": 0}]}"#);
            f.virtuoso(&["run", "p.prog", "guest.raw", "--cpu-file", "cpus.json"])
        }),
        RunError::OtherKernel { .. } => case(20, &["another kernel", "64 of 64"], |f| {
            let mut program = program(&Slice::Right);
            program.code.push(ir::program::CodeRange { addr: 0x100, bytes: vec![0xcc; 64] });
            run(f, &program, &["--input", "n=1"])
        }),
        RunError::Elsewhere { .. } => {
            case(20, &["lies 0x1000 bytes from where training had it", "--base"], |f| {
                moved_target(f, &[0x90; 64], false, None)
            })
        }
        RunError::Constant { .. } => {
            case(20, &["another constant", "at 0xffff800000008200", "--base"], |f| {
                // mov $1,%eax with another constant, in the middle of code that is the same.
                moved_target(f, &[&[0xb8, 2, 0, 0, 0][..], &[0x90; 59]].concat(), true, None)
            })
        }
        RunError::Copy { .. } => {
            case(20, &["lead to the kernel's code 0x1000 bytes", "elsewhere", "tampering"], |f| {
                // Where per-CPU memory points to, nothing of the program's code is.
                moved_target(f, &[0x90; 64], true, Some(KERNEL + 0x2_0000))
            })
        }
        RunError::Companion(_) => {
            case(1, &["p.prog", "companion file is damaged (the checksum of a piece is wrong"], |f| {
                let mut system = System::default();
                let noise: [u8; 4096] = std::array::from_fn(|at| ((at * at) >> 3) as u8);
                system.insert(KERNEL + 0x10_0000, &noise);
                let mut bytes = system.to_bytes().expect("it encodes");
                let index = u64::from_le_bytes(bytes[52..60].try_into().expect("eight bytes")) as usize;
                // In the piece's bytes, of which most stand in the file as they are.
                bytes[60 + index + 600] ^= 0x10;
                f.file("code.system", &bytes);
                let mut program = text("end");
                program.system = system.hash();
                large_target(f, 0, &[]);
                let mut page = vec![0x90; 4096];
                // mov KERNEL + 0x100000, %rax; jmp *%rax
                page[..2].copy_from_slice(&[0x48, 0xb8]);
                page[2..10].copy_from_slice(&(KERNEL + 0x10_0000).to_le_bytes());
                page[10..12].copy_from_slice(&[0xff, 0xe0]);
                program.pages.push(UserPage { addr: CODE, content: PageContent::Bytes(page) });
                f.file("p.prog", program.to_bytes().expect("it encodes"));
                f.virtuoso(&["run", "p.prog", "large.raw", "--whole", "--system", "code.system"])
            })
        }
        RunError::GsBase { .. } => case(1, &["kernel addresses", "at another moment"], |f| {
            large_target(f, 0, &[]);
            let cpu = std::fs::read_to_string(f.path("large.raw.cpu.json")).expect("it was written");
            let planted = format!(r#""kernel_gs_base": "{:#x}""#, KERNEL + 0x1000);
            f.file("large.raw.cpu.json", cpu.replace(r#""kernel_gs_base": 0"#, &planted));
            let mut program = text("end");
            program.signature = signature();
            f.file("p.prog", program.to_bytes().expect("it encodes"));
            f.virtuoso(&["run", "p.prog", "large.raw"])
        }),
    }
}

/// Words of per-CPU memory.
fn signature() -> Vec<ir::program::SignatureWord> {
    (1..6).map(|at| ir::program::SignatureWord { offset: 8 * at, points: 0x800 + at }).collect()
}

/// Asks a target whose kernel lies a page higher than training had it; `code` is what it has there,
/// and per-CPU memory points to code at `points`.
fn moved_target(folder: &Folder, code: &[u8], movable: bool, points: Option<u64>) -> Ended {
    let mut trained = code.to_vec();
    if movable {
        trained[1] = 1;
    }
    let mut bytes = vec![0u8; 0x5240];
    let handler = KERNEL + 0x9100;
    // An interrupt gate, present, for vector 14 of the table at 0x4000.
    let gate = &mut bytes[14 * 16..15 * 16];
    gate[..2].copy_from_slice(&(handler as u16).to_le_bytes());
    gate[2..6].copy_from_slice(&[0x10, 0, 0, 0x8e]);
    gate[6..8].copy_from_slice(&((handler >> 16) as u16).to_le_bytes());
    gate[8..12].copy_from_slice(&((handler >> 32) as u32).to_le_bytes());
    bytes[0x5200..].copy_from_slice(code);
    for word in points.into_iter().flat_map(|to| (0..12).map(move |at| (at, to + at as u64))) {
        bytes[0x1000 + 8 * word.0..][..8].copy_from_slice(&word.1.to_le_bytes());
    }
    large_target(folder, 0x4000, &bytes);
    let cpu = std::fs::read_to_string(folder.path("large.raw.cpu.json")).expect("it was written");
    let idt = format!(r#""rip": 0, "idt": {{"base": "{:#x}", "limit": "0xfff"}}"#, KERNEL + 0x4000);
    folder.file("large.raw.cpu.json", cpu.replace(r#""rip": 0"#, &idt));
    let mut program = text("end");
    program.relocations.images =
        vec![ir::relocation::Image { start: KERNEL + 0x8000, end: KERNEL + 0x8800, movable }];
    program.relocations.gates = vec![(14, KERNEL + 0x8100)];
    if points.is_some() {
        program.signature = signature();
        program.registers.push((machine::Reg::Efer as u16, 0xd01));
    }
    program.code.push(ir::program::CodeRange { addr: KERNEL + 0x8200, bytes: trained });
    folder.file("p.prog", program.to_bytes().expect("it encodes"));
    folder.virtuoso(&["run", "p.prog", "large.raw"])
}

/// Runs over the small target, with the companion file in place.
fn run(folder: &Folder, program: &Program, words: &[&str]) -> Ended {
    folder.file("p.prog", program.to_bytes().expect("it encodes"));
    folder.file(&companion_name(), companion());
    folder.virtuoso(&[&["run", "p.prog", target(folder)], words].concat())
}

/// A 64-bit program with this block, a page for the output `x` and a stack.
fn text(ops: &str) -> Program {
    let text = format!(
        "program \"test\"\nbegin {CODE:#x}\noutput \"x\" u64 @0x5000\npage 0x5000 zero\npage 0x7000 \
         zero\nregister rsp 0x7800\n\
         register rdx {KERNEL:#x}\nfunction f0 0x100 \"main\" {{\nb0 @0x100 - 0x1ff:\n {ops}\n}}\n"
    );
    let mut program = ir::text::parse_program(&text, machine::Reg::NAMES).expect("it parses");
    program.system = System::default().hash();
    program
}

/// Runs a block as a slice over the 64-bit target.
fn slice(folder: &Folder, ops: &str) -> Ended {
    large_target(folder, 0, &[]);
    folder.file("p.prog", text(ops).to_bytes().expect("it encodes"));
    folder.virtuoso(&["run", "p.prog", "large.raw", "--slice", "--json", "--fuel", "20000"])
}

/// Runs machine code as a whole run over the 64-bit target.
fn whole(folder: &Folder, code: &[u8]) -> Ended {
    run_whole(folder, text("end"), code)
}

fn run_whole(folder: &Folder, mut program: Program, code: &[u8]) -> Ended {
    large_target(folder, 0, &[]);
    let mut page = vec![0x90; 4096];
    page[..code.len()].copy_from_slice(code);
    program.pages.push(UserPage { addr: CODE, content: PageContent::Bytes(page) });
    folder.file("p.prog", program.to_bytes().expect("it encodes"));
    folder.file(&companion_name(), companion());
    folder.virtuoso(&["run", "p.prog", "large.raw", "--whole", "--json", "--fuel", "1000000"])
}

/// `large.raw`: 1 GiB of RAM, nearly all of it a hole in the file, mapped at [`KERNEL`] by one
/// large page; `bytes` lie at `at`.
fn large_target(folder: &Folder, at: u64, bytes: &[u8]) {
    let mut start = vec![0; 0x3000.max(at as usize + bytes.len())];
    start[0x1800..0x1808].copy_from_slice(&0x2003u64.to_le_bytes());
    start[0x2000..0x2008].copy_from_slice(&0x83u64.to_le_bytes());
    start[at as usize..][..bytes.len()].copy_from_slice(bytes);
    let path = folder.file("large.raw", start);
    let file = std::fs::OpenOptions::new().write(true).open(path).expect("it is there");
    file.set_len(1 << 30).expect("a sparse file");
    let cpu = format!(
        r#"{{"cpus": [{{"rip": 0, "cr0": "0x80000011", "cr3": "0x1000", "cr4": "0x20", "efer": "0x500",
            "cs": {{"selector": "0x10"}},
            "gs": {{"base": "{KERNEL:#x}"}}, "kernel_gs_base": 0}}]}}"#
    );
    folder.file("large.raw.cpu.json", cpu);
}

const LOADED: &str = r#"{"event":"loaded","version":"0"}"#;

/// Records with a program in QEMU's place that says what the recorder would say (`docs/markers.md`)
/// and ends as told.
fn record(folder: &Folder, says: &[&str], ends: &str, words: &[&str]) -> Ended {
    let lines: String = says.iter().map(|line| format!("echo '{line}' >> \"$status\"\n")).collect();
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = --version ]; then echo QEMU emulator version 10.0.0; exit 0; fi\n\
         for word; do case \"$word\" in *,config=*) config=${{word##*,config=}};; esac; done\n\
         status=$(sed 's/.*\"status\":\"\\([^\"]*\\)\".*/\\1/' \"$config\")\n{lines}{ends}\n"
    );
    let path = folder.file("qemu", script);
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(path, executable).expect("it becomes executable");
    folder.file("recorder.so", "not looked at");
    let record = ["record", "-o", "out", "--plugin", "recorder.so"];
    folder.virtuoso(&[&record, words, &["--", "./qemu", "-m", "64"]].concat())
}

fn documentation() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/exit-codes.md");
    std::fs::read_to_string(path).expect("docs/exit-codes.md")
}

/// The codes of the table, which a test of `exit.rs` compares with the code's own.
fn documented() -> BTreeSet<i32> {
    let text = documentation();
    text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next()?.parse().ok()).collect()
}

#[test]
fn every_exit_code_is_reached() {
    // 70 is tested beside its code; 19, 29 and 40 need a live guest (live.rs, live_pauses.rs), 35 a
    // pack with file programs (files.rs).
    let mut reached = BTreeSet::from([19, 29, 35, 40, 70]);
    for (number, case) in COMMANDS.iter().enumerate() {
        let folder = Folder::new(&format!("exit-{number}"));
        let ended = (case.run)(&folder);
        assert_eq!(ended.code(), case.code, "{}{}", ended.out(), ended.err());
        assert!(
            case.says.iter().all(|part| ended.err().contains(part)),
            "{:?} in: {}",
            case.says,
            ended.err()
        );
        reached.insert(case.code);
    }
    reached.extend(STOPS.iter().map(|stop| stop.code));
    assert_eq!(reached, documented(), "cases here, and codes in docs/exit-codes.md");
}

#[test]
fn every_stop_is_reached() {
    for stop in STOPS {
        for (way, run) in [("slice", stop.slice), ("whole", stop.whole)] {
            let Some(run) = run else { continue };
            let folder = Folder::new(&format!("stop-{}-{way}", stop.name));
            let ended = run(&folder);
            let err = ended.err();
            assert_eq!(ended.code(), stop.code, "{} as {way}: {}{err}", stop.name, ended.out());
            let object: serde_json::Value = serde_json::from_str(&ended.out()).expect("JSON");
            assert_eq!(object["outcome"], stop.name, "{object}");
            assert_eq!(object[format!("{way}_stop")]["outcome"], stop.name, "{object}");
            assert!(object["outputs"].is_null(), "no answer where there is none: {object}");
            assert!(
                err.lines().count() == 1 && err.contains("stopped: ") && err.contains("; "),
                "cause and step: {err}"
            );
            assert!(err.contains("0x"), "the place: {err}");
        }
        assert!(stop.slice.is_some() || stop.whole.is_some(), "{} is reached", stop.name);
    }
    let text = String::new;
    let all = [
        Stopped::Unexplored { at: 0, to: 0 },
        Stopped::Overwritten { at: 0, address: 0 },
        Stopped::OutOfFuel { at: 0, used: 0 },
        Stopped::OutOfTime { at: 0, used: 0, milliseconds: 0 },
        Stopped::Unmapped { at: 0, address: 0, cause: text() },
        Stopped::NeedsDevice { at: 0, what: text(), clock: false },
        Stopped::UnknownCounter { at: 0 },
        Stopped::Blocked { at: 0 },
        Stopped::Switched { at: 0, to: 0 },
        Stopped::Unrepeated { at: 0, why: text() },
        Stopped::Exception { at: 0, vector: 0 },
        Stopped::Unsupported { at: 0, name: text() },
        Stopped::NoCode { at: 0, to: 0, object: None },
        Stopped::Limit { at: 0, what: text() },
    ];
    assert!(all.iter().map(name).eq(STOPS.iter().map(|stop| stop.name)), "a row of STOPS for each");
}

#[test]
fn every_refusal_to_run_is_reached() {
    let text = String::new;
    let all = [
        RunError::Input(InputError::Unknown { name: text(), known: text() }),
        RunError::Input(InputError::Missing { name: text() }),
        RunError::Input(InputError::Value { name: text(), text: text(), why: text() }),
        RunError::TooLarge(TooLarge),
        RunError::NoRegister(""),
        RunError::Paging(text()),
        RunError::OtherKernel { differing: 0, checked: 0 },
        RunError::Elsewhere { slide: 0 },
        RunError::Constant { at: 0 },
        RunError::Copy { slide: 0 },
        RunError::GsBase { active: 0, swapped: 0 },
        RunError::Companion(ir::FileError::Foreign { what: "file" }),
    ];
    for (number, error) in all.iter().enumerate() {
        let folder = Folder::new(&format!("refusal-{number}"));
        let case = refusal(error);
        (case.run)(&folder).fails(case.code, case.says);
    }
}

#[test]
fn the_documentation_says_what_to_do_about_each() {
    let text = documentation();
    for code in documented() {
        let start = format!("* **{code}**");
        let sentence = text.lines().find(|line| line.starts_with(&start));
        assert!(
            sentence.is_some_and(|line| line.len() > start.len() + 40),
            "docs/exit-codes.md: a line {start} ..."
        );
    }
    for stop in STOPS {
        let start = format!("* **{}** `{}`", stop.code, stop.name);
        assert!(text.lines().any(|line| line.starts_with(&start)), "docs/exit-codes.md: a line {start} ...");
    }
}
