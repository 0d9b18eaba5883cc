//! Compiles the trainers of `guests/trainers/files` and `guests/trainers/basic` for 64-bit Linux
//! and for i386, so that they are part of the command and training needs no compiler.
//!
//! They use no library and no header but the compiler's own, so the plain C compiler is enough for
//! both. The same compiler makes the same bytes wherever the sources lie: it runs in their
//! directory, and nothing of time or place gets into what it makes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// The directories with sources, below `guests`.
const DIRECTORIES: [&str; 2] = ["trainers/basic", "trainers/files"];

/// Code that needs nothing of a library, not even what compilers call by themselves, and uses no
/// vector registers, whose use costs the kernel, and a run, more.
const WORDS: [&str; 18] = [
    "-std=gnu11",
    "-O2",
    "-Wall",
    "-Wextra",
    "-ffreestanding",
    "-fno-tree-loop-distribute-patterns",
    "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables",
    "-fcf-protection=none",
    "-mgeneral-regs-only",
    "-fno-pie",
    "-no-pie",
    "-static",
    "-nostdlib",
    "-Wl,--build-id=none",
    "-Wl,-z,noexecstack",
    "-Wl,-z,noseparate-code",
    "-Iinclude",
];

/// What each is compiled for, with the compiler's words for it.
const PROCESSORS: [(&str, &[&str]); 2] =
    [("x86_64", &["-m64", "-march=x86-64"]), ("i386", &["-m32", "-march=i686"])];

fn main() {
    let guests =
        PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo says where")).join("../../guests");
    let products = PathBuf::from(env::var("OUT_DIR").expect("cargo says where"));
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=CC");
    println!("cargo:rerun-if-changed={}", guests.join("include").display());
    let mut table = String::from("&[\n");
    for directory in DIRECTORIES {
        println!("cargo:rerun-if-changed={}", guests.join(directory).display());
        for source in sources(&guests, directory) {
            let name = source.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let place = |processor: &str| products.join(format!("{name}.{processor}"));
            for (processor, words) in PROCESSORS {
                compile(&guests, &source, words, &place(processor));
            }
            let bytes = |processor| format!("include_bytes!({:?})", place(processor));
            let (wide, narrow) = (bytes("x86_64"), bytes("i386"));
            table += &format!("    Builtin {{ name: {name:?}, x86_64: {wide}, i386: {narrow} }},\n");
        }
    }
    fs::write(products.join("builtins.rs"), table + "]").expect("the target directory is writable");
}

/// The sources of a directory in the order of their names, as paths from `guests` on.
fn sources(guests: &Path, directory: &str) -> Vec<PathBuf> {
    let files = fs::read_dir(guests.join(directory)).expect("the sources are there");
    let mut found: Vec<PathBuf> = files
        .map(|file| Path::new(directory).join(file.expect("it can be read").file_name()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "c"))
        .collect();
    found.sort();
    found
}

fn compile(guests: &Path, source: &Path, words: &[&str], product: &Path) {
    let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let mut command = Command::new(&compiler);
    command.current_dir(guests).args(WORDS).args(words).arg("-o").arg(product).arg(source);
    let ended = command.output();
    let ended = ended.unwrap_or_else(|error| {
        panic!(
            "the built-in trainers are C: install a C compiler (Debian: gcc) or set CC: {compiler:?}: {error}"
        )
    });
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{command:?} failed; gcc 8 or newer does it:\n{said}");
}
