//! Trainers of other compilers and for other systems: they compile without a warning, their marks
//! are in the code in the order of the source, and of those for Windows what they import is found.
//! A compiler that is not installed is passed over with a remark.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "../src/imports.rs"]
mod imports;

use object::{Object, ObjectSection, SectionKind};

type Failure = Box<dyn std::error::Error>;

const SIX: [&str; 6] = ["getpid", "pslist", "getpsfile", "lsmod", "getdrvfile", "gettime"];

/// Sets one mark of each kind, in the order 3, 4, 1, 2.
const MARKED: &str = r#"
#include "virtuoso.h"
static unsigned value;
int main(void)
{
    virtuoso_input("in:u32", &value);
    virtuoso_output("out:u32", &value);
    virtuoso_begin("marked");
    value = 7;
    virtuoso_end();
    return value == 7 ? 0 : 1;
}
"#;

fn guests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guests")
}

/// A fresh folder.
fn folder(name: &str) -> Result<PathBuf, Failure> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // What an earlier run left.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Runs a compiler that has to say nothing; `false` if it is not installed.
fn compile(compiler: &str, arguments: &[&str]) -> Result<bool, Failure> {
    let output = match Command::new(compiler).args(arguments).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("{compiler} is not installed: what it makes of the marks is not tested");
            return Ok(false);
        }
        output => output?,
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{compiler} {arguments:?}: {said}");
    Ok(true)
}

/// The marks in code, by their numbers.
fn marks(code: &[u8]) -> Vec<u8> {
    let is_mark = |seven: &&[u8]| matches!(seven, [0x0f, 0x1f, 0x80, 1..=4, 0x00, 0x54, 0x56]);
    code.windows(7).filter(is_mark).map(|seven| seven[3]).collect()
}

/// The marks in an executable's code.
fn marks_of(file: &Path) -> Result<Vec<u8>, Failure> {
    let bytes = fs::read(file)?;
    let file = object::File::parse(bytes.as_slice())?;
    let mut found = Vec::new();
    for section in file.sections().filter(|section| section.kind() == SectionKind::Text) {
        found.extend(marks(section.data()?));
    }
    Ok(found)
}

#[test]
fn marks_of_every_compiler() -> Result<(), Failure> {
    let folder = folder("compilers")?;
    let include = format!("-I{}", guests().join("include").display());
    for (compiler, source, options) in [
        ("gcc", "marked.c", &["-Wall", "-Wextra", "-Werror", "-O2"][..]),
        ("gcc", "marked.c", &["-Wall", "-Wextra", "-Werror", "-O0", "-std=c99", "-pedantic"]),
        ("g++", "marked.cc", &["-Wall", "-Wextra", "-Werror", "-O2"]),
        ("clang", "marked.c", &["-Wall", "-Wextra", "-Werror", "-O2"]),
        ("tcc", "marked.c", &["-Wall", "-Werror"]),
        (
            "x86_64-w64-mingw32-gcc",
            "marked.c",
            &["-Wall", "-Wextra", "-Werror", "-O2", "-std=c99", "-pedantic"],
        ),
        (
            "i686-w64-mingw32-gcc",
            "marked.c",
            &["-Wall", "-Wextra", "-Werror", "-O2", "-std=c99", "-pedantic"],
        ),
    ] {
        let source = folder.join(source);
        fs::write(&source, MARKED)?;
        let out = folder.join(compiler);
        let (source, out_name) = (source.display().to_string(), out.display().to_string());
        if !compile(compiler, &[options, &[&include, &source, "-o", &out_name]].concat())? {
            continue;
        }
        let out = if out.is_file() { out } else { out.with_extension("exe") };
        assert_eq!(marks_of(&out)?, [3, 4, 1, 2], "{compiler} {options:?}");
        if !compiler.contains("mingw") {
            assert!(Command::new(&out).status()?.success(), "{compiler}: marks do nothing");
        }
    }
    Ok(())
}

#[test]
fn assemblers_give_the_same_bytes() -> Result<(), Failure> {
    let folder = folder("assemblers")?;
    let include = guests().join("include");
    let path = |name: &str| folder.join(name).display().to_string();
    let expected = |bytes: &[u8], who: &str| {
        assert_eq!(marks(bytes), [3, 4, 1, 2], "{who}");
        let begin: &[u8] = &[0xbe, 1, 0, 0, 0, 0x0f, 0x1f, 0x80, 1, 0, 0x54, 0x56, 0xfc, 0x85, 0xe4];
        assert!(bytes.windows(begin.len()).any(|it| it == begin), "{who}: {bytes:x?}");
    };
    let body = "virtuoso_input\nvirtuoso_output\nvirtuoso_begin\nvirtuoso_end\n";
    for bits in ["32", "64"] {
        let include_option = format!("-I{}/", include.display());
        fs::write(path("m.s"), format!(".include \"virtuoso.inc\"\n{body}"))?;
        if compile("as", &[&format!("--{bits}"), &include_option, &path("m.s"), "-o", &path("m.o")])? {
            let object = fs::read(path("m.o"))?;
            let file = object::File::parse(object.as_slice())?;
            let text = file.section_by_name(".text").ok_or("no code")?;
            expected(text.data()?, "as");
        }
        fs::write(path("m.nasm"), format!("bits {bits}\n%include \"virtuoso-nasm.inc\"\n{body}"))?;
        if compile(
            "nasm",
            &["-Werror", &include_option, "-f", "bin", &path("m.nasm"), "-o", &path("nasm.bin")],
        )? {
            expected(&fs::read(path("nasm.bin"))?, "nasm");
        }
        let macros = include.join("virtuoso-fasm.inc");
        fs::write(path("m.fasm"), format!("use{bits}\ninclude '{}'\n{body}", macros.display()))?;
        if compile("fasm", &[&path("m.fasm"), &path("fasm.bin")])? {
            expected(&fs::read(path("fasm.bin"))?, "fasm");
        }
    }
    Ok(())
}

#[test]
fn file_programs_of_posix() -> Result<(), Failure> {
    let folder = folder("posix")?;
    let include = format!("-I{}", guests().join("include").display());
    for compiler in ["gcc", "musl-gcc", "clang"] {
        for name in ["read", "readdir", "readlink", "stat"] {
            let source = guests().join(format!("trainers/posix/{name}.c")).display().to_string();
            let out = folder.join(format!("{name}-{compiler}"));
            let options = ["-O2", "-std=c11", "-pedantic", "-Wall", "-Wextra", "-Werror", "-static"];
            let files = [include.as_str(), &source, "-o", &out.display().to_string()];
            if !compile(compiler, &[&options[..], &files[..]].concat())? {
                break;
            }
            // A compiler may have the end twice, on two ways to it.
            let mut found = marks_of(&out)?;
            found.dedup();
            assert_eq!(found, [3, 4, 1, 2], "{name}");
            // Outside of a recording they do their work, and the marks do nothing.
            assert!(Command::new(&out).status()?.success(), "{name}");
        }
    }
    Ok(())
}

#[test]
fn trainers_for_windows() -> Result<(), Failure> {
    let folder = folder("windows")?;
    let include = format!("-I{}", guests().join("include").display());
    for compiler in ["i686-w64-mingw32-gcc", "x86_64-w64-mingw32-gcc"] {
        for name in SIX {
            let source = guests().join(format!("trainers/windows/{name}.c")).display().to_string();
            let out = folder.join(format!("{name}-{compiler}.exe"));
            let options = ["-O2", "-Wall", "-Wextra", "-Werror", "-static", "-Wl,--disable-dynamicbase"];
            let files = [include.as_str(), &source, "-o", &out.display().to_string(), "-lntdll"];
            if !compile(compiler, &[&options[..], &files[..]].concat())? {
                break;
            }
            let found = marks_of(&out)?;
            assert!(found.ends_with(&[1, 2]), "{name}: {found:?}");
            let declared = fs::read_to_string(&source)?.matches("put(\"").count();
            assert_eq!(found.len(), 2 + declared, "{name}");
            imported(name, &fs::read(&out)?)?;
        }
    }
    Ok(())
}

/// The trainer's function and the C library's allocators are among what it imports, and their slots
/// and jumps are where they can be.
fn imported(name: &str, bytes: &[u8]) -> Result<(), Failure> {
    let file = object::File::parse(bytes)?;
    let found = match &file {
        object::File::Pe32(pe) => imports::imports(pe)?,
        object::File::Pe64(pe) => imports::imports(pe)?,
        _ => return Err("no PE file".into()),
    };
    let function = match name {
        "getpid" => "NtQueryInformationProcess",
        "getpsfile" => "NtOpenProcess",
        "gettime" => "NtQuerySystemTime",
        _ => "NtQuerySystemInformation",
    };
    let import =
        |name: &str| found.iter().find(|it| it.name == name).ok_or_else(|| format!("{name} not found"));
    let called = import(function)?;
    assert!(called.direct || !called.stubs.is_empty(), "{function} is called");
    for name in ["malloc", "calloc", "free"] {
        let it = import(name)?;
        assert!(!it.stubs.is_empty(), "{name}: the library gives the linker a jump");
        let section = |address: u64| {
            file.sections()
                .find(|it| (it.address()..it.address() + it.size()).contains(&address))
                .ok_or("no section")
        };
        assert_eq!(section(it.slot)?.name()?, ".idata");
        for &stub in &it.stubs {
            let text = section(stub)?;
            let at = (stub - text.address()) as usize;
            assert_eq!(text.data()?.get(at..at + 2), Some(&[0xff, 0x25][..]), "{name}");
        }
    }
    Ok(())
}
