//! `virtuoso verify`: a search over changed targets finds no difference where there is none, and
//! one where the slice lacks something.

#![forbid(unsafe_code)]

#[allow(dead_code, reason = "shared with other tests, which need more of it")]
mod case;
#[allow(dead_code, reason = "shared with other tests, which need more of it")]
mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;

use case::{Failure, build, recording};
use ir::program::{Block, BlockId, PageContent, Program, Target, Terminator};
use ir::{Kind, Op, Var, Width};
use machine::Cpu;
use serde_json::Value as Json;
use slicer::{Policy, Start};
use support::{Ended, Folder, Slice, companion, companion_name, program};

const CODE: u64 = 0x1000;
const OUTPUT: u64 = 0x2004;

/// Runs a search of the program in the folder, and reads its JSON.
fn search(folder: &Folder, target: &str, words: &[&str]) -> Result<(Ended, Json), Failure> {
    let ended = folder.virtuoso(&[&["verify", "p.prog", target, "--json"], words].concat());
    let object = serde_json::from_str(&ended.out()).map_err(|error| format!("{error}: {}", ended.err()))?;
    Ok((ended, object))
}

fn count(object: &Json, name: &str) -> u64 {
    object[name].as_u64().unwrap_or_else(|| panic!("{name}: {object}"))
}

/// What the companion file of a program is called by.
fn hex(program: &Program) -> String {
    program.system[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes the recorded case: the program, and the memory that the recording began in. Whole runs
/// read more of a target than the case has of its own.
fn recorded(folder: &Folder) -> Result<(), Failure> {
    let built = build(Policy::Guard, false)?;
    folder.file("p.prog", built.program.to_bytes()?);
    folder.file(&format!("{}.system", hex(&built.program)), built.system.to_bytes()?);
    let recording = recording()?;
    let file = File::create(folder.path("guest.raw"))?;
    let ranges = &recording.trace.header().ram_ranges;
    file.set_len(ranges.iter().map(|range| range.start.0 + range.size).max().unwrap_or(0))?;
    for page in recording.trace.snapshot().pages() {
        let (addr, bytes) = page?;
        file.write_all_at(&bytes, addr.0)?;
    }
    let start = Start::new(&recording)?;
    let cpu = Cpu { regs: start.registers().clone() };
    folder.file("guest.raw.cpu.json", machine::target::cpus_json(&[cpu]));
    Ok(())
}

#[test]
fn a_right_slice_gives_the_whole_runs_answer_over_changed_targets() -> Result<(), Failure> {
    let folder = Folder::new("search-recorded");
    recorded(&folder)?;
    let (ended, object) = search(&folder, "guest.raw", &["--cases", "300", "--seed", "7"])?;
    assert_eq!((ended.code(), count(&object, "different")), (0, 0), "{object:#}{}", ended.err());
    assert_eq!(count(&object, "cases"), 300);
    assert!(count(&object, "equal") > 50 && count(&object, "words") > 1000, "{object:#}");
    assert!(count(&object, "equal_and_new") > 0 && count(&object, "whole_stopped") > 0, "{object:#}");
    let sum: u64 = ["equal", "slice_stopped", "whole_stopped", "both_stopped", "refused", "different"]
        .iter()
        .map(|name| count(&object, name))
        .sum();
    assert_eq!(sum, 300);
    Ok(())
}

/// Where the target's memory from 0 on is mapped.
const KERNEL: u32 = 0x8000_0000;

/// A 32-bit program over two words of the target's kernel, at 0x100 and 0x104. Its code copies the
/// first over the second and puts out the second; the slice lacks the store.
fn lacking() -> Program {
    let mut program = program(&Slice::Right);
    let mut code = vec![0; 4096];
    // mov eax, [KERNEL + 0x100]; mov [KERNEL + 0x104], eax; mov eax, [KERNEL + 0x104];
    // mov [OUTPUT], eax; the end mark.
    let listing = [
        0xa1, 0, 1, 0, 0x80, 0xa3, 4, 1, 0, 0x80, 0xa1, 4, 1, 0, 0x80, 0xa3, 4, 0x20, 0, 0, 0x0f, 0x1f, 0x80,
        2, 0, 0x54, 0x56,
    ];
    code[..listing.len()].copy_from_slice(&listing);
    program.pages[0].content = PageContent::Bytes(code);
    program.inputs.clear();
    program.dependences.clear();
    let read = Var::temp(0);
    let ops = vec![
        Op::new(Kind::Load, Width::B32, read, &[u64::from(KERNEL + 0x104).into()]),
        Op::new(Kind::Store, Width::B32, Var::NONE, &[OUTPUT.into(), read.into()]),
    ];
    let end = CODE + 20;
    program.functions[0].blocks = vec![
        Block { pc: CODE, ops, term: Terminator::Goto(Target::Block(BlockId(1))), term_pc: CODE + 15 },
        Block { pc: end, ops: Vec::new(), term: Terminator::End, term_pc: end },
    ];
    program
}

/// Writes the program, its companion file, and a target whose first 4 MiB one large page of the
/// kernel's maps; the target's name.
fn write(folder: &Folder, program: &Program) -> Result<&'static str, Failure> {
    folder.file("p.prog", program.to_bytes()?);
    folder.file(&companion_name(), companion());
    let mut memory = vec![0; 0x2000];
    let entry = 0x1000 + 4 * (KERNEL as usize >> 22);
    memory[entry..entry + 4].copy_from_slice(&0x83u32.to_le_bytes());
    folder.file("guest.raw", memory);
    let cpu = r#"{"cpus": [{"rip": 0, "cr0": "0x80000011", "cr3": "0x1000", "cr4": "0x10"}]}"#;
    folder.file("guest.raw.cpu.json", cpu);
    Ok("guest.raw")
}

#[test]
fn a_slice_that_lacks_a_store_is_found_and_the_seed_repeats_it() -> Result<(), Failure> {
    let folder = Folder::new("search-lacking");
    let guest = write(&folder, &lacking())?;
    let (ended, object) = search(&folder, guest, &["--cases", "20"])?;
    assert_eq!(ended.code(), 21, "{object:#}{}", ended.err());
    assert_eq!(object["unchanged"]["differing"], serde_json::json!([]), "{object:#}");
    assert_eq!((count(&object, "words"), count(&object, "places")), (1, 1), "what it wrote first is no word");
    assert_eq!((count(&object, "cases"), count(&object, "different")), (20, 20));
    let finding = &object["differences"][0];
    let change = &finding["changes"][0];
    assert_eq!((&change["physical"], &change["old"]), (&"0x100".into(), &"0x0".into()), "{finding:#}");
    assert_eq!(finding["differing"], serde_json::json!(["next"]));
    assert_eq!(finding["times"], 20, "{finding:#}");
    assert_ne!(finding["slice_outputs"], finding["whole_outputs"]);

    let seed = finding["seed"].as_str().ok_or("a seed")?;
    let (_, again) = search(&folder, guest, &["--cases", "1", "--seed", seed])?;
    assert_eq!(again["differences"][0]["changes"], finding["changes"]);

    let ended = folder.virtuoso(&["verify", "p.prog", guest, "--cases", "20"]);
    assert_eq!(ended.code(), 21);
    assert!(ended.out().contains("(physical 0x100, 4 bytes): 0x0 -> "), "{}", ended.out());
    assert!(ended.out().contains(&format!("--seed {seed}")), "{}", ended.out());
    assert!(ended.err().contains("20 changed targets"), "{}", ended.err());
    Ok(())
}

#[test]
fn the_same_seed_tries_the_same_cases_and_another_does_not() -> Result<(), Failure> {
    let folder = Folder::new("search-seeds");
    let guest = write(&folder, &lacking())?;
    let changes = |seed: &str| -> Result<Json, Failure> {
        let (_, mut object) = search(&folder, guest, &["--cases", "5", "--seed", seed])?;
        object["seconds"].take();
        Ok(object)
    };
    assert_eq!(changes("3")?, changes("3")?);
    assert_ne!(changes("3")?, changes("4")?);
    Ok(())
}

#[test]
fn a_search_ends_when_nothing_is_left_to_change() -> Result<(), Failure> {
    let folder = Folder::new("search-nothing");
    let guest = write(&folder, &program(&Slice::Right))?;
    let (ended, object) = search(&folder, guest, &["--input", "n=1", "--search", "60m"])?;
    assert_eq!(ended.code(), 0, "{object:#}{}", ended.err());
    assert_eq!((count(&object, "words"), count(&object, "cases")), (0, 0), "it reads its own page only");
    assert_eq!(object["exhausted"], true);
    Ok(())
}

#[test]
fn what_cannot_be_compared_is_not_searched() -> Result<(), Failure> {
    let folder = Folder::new("search-refused");
    let guest = write(&folder, &program(&Slice::Wrong))?;
    let (ended, object) = search(&folder, guest, &["--input", "n=1", "--cases", "5"])?;
    assert_eq!((ended.code(), count(&object, "cases")), (21, 0), "{object:#}");
    assert_eq!(object["unchanged"]["differing"], serde_json::json!(["next"]));
    let ended = folder.virtuoso(&["verify", "p.prog", guest, "--input", "n=1", "--cases", "5"]);
    assert!(ended.out().contains("over the unchanged target") && ended.out().contains("next by slice: 3"));

    write(&folder, &program(&Slice::Unexplored))?;
    let (ended, object) = search(&folder, guest, &["--input", "n=1", "--cases", "5"])?;
    assert_eq!((ended.code(), &object["unchanged"]["slice_outcome"]), (0, &"unexplored".into()));
    assert!(ended.err().contains("over the unchanged target the slice stops: unexplored"), "{}", ended.err());

    let ended = folder.virtuoso(&["verify", "p.prog", "qmp:none.sock", "--input", "n=1", "--cases", "1"]);
    ended.fails(1, &["keep the guest paused", "dump its memory"]);
    std::fs::remove_file(folder.path(&companion_name()))?;
    let ended = folder.virtuoso(&["verify", "p.prog", guest, "--input", "n=1", "--cases", "1"]);
    ended.fails(1, &["companion file", "--system"]);
    let ended = folder.virtuoso(&["verify", "p.prog", guest]);
    assert!(ended.code() == 2 && ended.err().contains("--search"), "{}", ended.err());
    Ok(())
}

#[test]
fn help_has_examples() {
    let ended = Folder::new("search-help").virtuoso(&["verify", "--help"]);
    assert!(ended.out().contains("Examples:") && ended.out().contains("--search 60s"), "{}", ended.out());
    assert!(ended.out().contains("--cases 1 --seed"), "{}", ended.out());
}

/// A program made without guards, over the memory of the recording itself.
#[test]
fn a_program_without_guards_is_found_over_its_own_recording() -> Result<(), Failure> {
    let folder = Folder::new("search-assume");
    let trace = case::file("pslist.trace").display().to_string();
    let write = |policy| -> Result<(), Failure> {
        let built = build(policy, true)?;
        folder.file("p.prog", built.program.to_bytes()?);
        folder.file(&format!("{}.system", hex(&built.program)), built.system.to_bytes()?);
        Ok(())
    };
    write(Policy::Assume)?;
    let (ended, object) = search(&folder, &trace, &["--cases", "300"])?;
    assert_eq!(ended.code(), 21, "{object:#}{}", ended.err());
    assert!(count(&object, "different") > 0 && count(&object, "equal") > 50, "{object:#}");
    let seed = object["differences"][0]["seed"].as_str().ok_or("a seed")?;
    let (ended, again) = search(&folder, &trace, &["--cases", "1", "--seed", seed])?;
    assert_eq!((ended.code(), count(&again, "different")), (21, 1), "{again:#}");

    write(Policy::Guard)?;
    let (ended, object) = search(&folder, &trace, &["--cases", "300"])?;
    assert_eq!((ended.code(), count(&object, "different")), (0, 0), "{object:#}{}", ended.err());
    assert!(count(&object, "equal") > 50, "{object:#}");
    Ok(())
}
