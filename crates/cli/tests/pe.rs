//! A Windows executable that allocates, compiled by mingw-w64 and loaded by hand: where it lies,
//! its import table and its conventions are found by the command, and its program answers with
//! other inputs. Nothing here is Windows: the functions it imports are those of `conventions`.

#![forbid(unsafe_code)]

#[allow(dead_code, reason = "shared with another test, which needs more of it")]
mod hand;
#[path = "../src/imports.rs"]
mod imports;
#[allow(dead_code, reason = "shared with other tests, which need more of it")]
mod support;

use std::path::PathBuf;
use std::process::Command;

use engine::{Environment, Limits, Outcome, Run, SliceProgram, Value, WholeProgram, parse_inputs};
use hand::{Failure, Guest};
use ir::summary::Action;
use ir::{Program, System};
use machine::{Reg, VirtAddr};
use object::{Object, ObjectSection, ObjectSymbol};
use support::Folder;
use trace::{Direction, Variable};
use virtuoso_cli::allocators::of_windows;

/// The work is in a function of its own, so that nothing of it comes before the begin mark.
const SOURCE: &str = r#"
#include <stdlib.h>
#include <windows.h>
#include "virtuoso.h"

unsigned n = 1, sum, in_place;

void work(void)
{
    HANDLE heap = (HANDLE)1;
    unsigned *list = HeapAlloc(heap, 0, 64);
    unsigned *copy = malloc(16);
    list[0] = n;
    list[2] = 3;
    *copy = n;
    list = HeapReAlloc(heap, 0, list, 128);
    in_place = HeapReAlloc(heap, HEAP_REALLOC_IN_PLACE_ONLY, list, 256) != NULL;
    sum = list[0] + list[2] + *copy + (HeapFree(heap, 0, list) ? 100 : 0);
    virtuoso_end();
}

__attribute__((naked)) void start(void)
{
    __asm__(".byte 0x0f, 0x1f, 0x80, 0x01, 0x00, 0x54, 0x56; jmp %P0" : : "i"(work));
}
"#;

fn guests() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../guests")
}

/// Compiles it; `false` where the compiler is not installed.
fn compile(compiler: &str, folder: &Folder) -> Result<bool, Failure> {
    let source = folder.file("heap.c", SOURCE);
    let mut command = Command::new(compiler);
    command.args(["-O2", "-nostdlib", "-fno-asynchronous-unwind-tables"]);
    command
        .args(["-Wl,--image-base,0x10000", "-Wl,--disable-dynamicbase", "-I"])
        .arg(guests().join("include"));
    // 32-bit names begin with an underscore.
    let start = if compiler.starts_with("i686") { "-Wl,-e,_start" } else { "-Wl,-e,start" };
    command.arg(start).arg("-o").arg(folder.path("heap.exe")).arg(source).args(["-lkernel32", "-lmsvcrt"]);
    let output = match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("{compiler} is not installed: executables of Windows are not tested");
            return Ok(false);
        }
        output => output?,
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(true)
}

/// The functions it imports, where `conventions` has them.
fn address(name: &str) -> Option<u64> {
    Some(match name {
        "HeapAlloc" => 0x1100,
        "HeapReAlloc" => 0x1130,
        "HeapFree" => 0x1180,
        "malloc" => 0x11c0,
        _ => return None,
    })
}

/// Loads it so far above its own addresses.
fn loaded(folder: &Folder, wide: bool, bias: u64) -> Result<Guest, Failure> {
    let mut guest = Guest::new(if wide { "microsoft64.txt" } else { "stdcall.txt" }, wide)?;
    let bytes = std::fs::read(folder.path("heap.exe"))?;
    let file = object::File::parse(bytes.as_slice())?;
    let mut image = std::collections::BTreeMap::new();
    let mut put = |address: u64, bytes: &[u8]| {
        for (at, &byte) in (address + bias..).zip(bytes) {
            image.entry(at & !4095).or_insert_with(|| vec![0; 4096])[(at & 4095) as usize] = byte;
        }
    };
    for section in file.sections() {
        put(section.address(), &vec![0; section.size() as usize]);
        put(section.address(), section.data()?);
    }
    let found = match &file {
        object::File::Pe32(pe) => imports::imports(pe)?,
        object::File::Pe64(pe) => imports::imports(pe)?,
        _ => return Err("no PE file".into()),
    };
    for import in found {
        let address = address(&import.name).ok_or("it imports something else")?;
        put(import.slot, &address.to_le_bytes()[..if wide { 8 } else { 4 }]);
    }
    guest.pages.extend(image);
    guest.pages.sort();
    let symbol = |name: &str| {
        let is = |it: &object::Symbol<'_, '_>| {
            it.name().is_ok_and(|other| other.strip_prefix('_').unwrap_or(other) == name)
        };
        file.symbols().find(is).map(|it| it.address() + bias).ok_or_else(|| format!("no symbol {name}"))
    };
    guest.regs.set(Reg::Rip, symbol("start")? + 7);
    guest.variables = vec![
        Variable::from_spec(Direction::Input, "n:u32", VirtAddr(symbol("n")?))?,
        Variable::from_spec(Direction::Output, "sum:u32", VirtAddr(symbol("sum")?))?,
        Variable::from_spec(Direction::Output, "in_place:u32", VirtAddr(symbol("in_place")?))?,
    ];
    Ok(guest)
}

fn answers(wide: bool, bias: u64) -> Result<(), Failure> {
    let compiler = if wide { "x86_64-w64-mingw32-gcc" } else { "i686-w64-mingw32-gcc" };
    let folder = Folder::new(compiler);
    if !compile(compiler, &folder)? {
        return Ok(());
    }
    let guest = loaded(&folder, wide, bias)?;
    folder.file("heap.trace", guest.recording()?);
    let arguments = [
        "build",
        "heap.trace",
        "-o",
        "heap.prog",
        "--exe",
        "heap.exe",
        "--view",
        "paused",
        "--allow-constant",
    ];
    let built = folder.virtuoso(&arguments);
    assert_eq!((built.code(), built.err().as_str()), (0, ""));
    let program = Program::from_bytes(&std::fs::read(folder.path("heap.prog"))?)?;
    let (jumps, called): (Vec<_>, Vec<_>) =
        program.summaries.iter().partition(|(at, _)| *at > 0x1_0000 + bias);
    let actions = called.iter().map(|(at, summary)| (*at, summary.action));
    let expected = [(0x1100, Action::Malloc), (0x1130, Action::Realloc), (0x1180, Action::Release)];
    assert!(actions.eq(expected), "what the loader wrote: {called:x?}");
    let malloc = of_windows("malloc", wide);
    assert!(jumps.iter().any(|(_, summary)| Some(*summary) == malloc), "the jump to malloc: {jumps:x?}");
    let (memory, system) = (guest.memory(), System::default());
    let run =
        Run { memory: &memory, regs: &guest.regs, env: Environment::default(), limits: Limits::default() };
    let inputs = parse_inputs(&program, &[("n".into(), "20".into())])?;
    let slice = SliceProgram::new(&program)?.run(&run, &inputs)?.0;
    let whole = WholeProgram::new(&program, &system).run(&run, &inputs)?.0;
    assert_eq!(slice, whole);
    let Outcome::Answer(values) = slice else { return Err(format!("{slice:?}").into()) };
    let value = |name: &str| values.get(name).cloned();
    assert_eq!(value("sum"), Some(Value::Unsigned(143)));
    assert_eq!(value("in_place"), Some(Value::Unsigned(0)));
    Ok(())
}

#[test]
fn an_executable_of_64_bits_that_was_moved() -> Result<(), Failure> {
    answers(true, 0x1_0000)
}

#[test]
fn an_executable_of_32_bits() -> Result<(), Failure> {
    answers(false, 0)
}
