//! The Linux trainers as ordinary programs on this machine: what they read is given to them by a
//! header in front of their source, for no guest of ours has modules with such names.
//!
//! A compiler that is not installed is passed over with a remark.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

type Failure = Box<dyn std::error::Error>;

/// Reads another file than it is asked for, as if it were one of procfs.
const MODULES: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <sys/vfs.h>
#define fopen(path, mode) fopen(getenv("GIVEN"), mode)
#define fstatfs(file, fs) ((void)(file), (fs)->f_type = 0x9fa0, 0)
"#;

/// Looks into another directory than `/proc`, which is none of procfs.
const DIRECTORY: &str = r#"
#include <dirent.h>
#include <stdlib.h>
#include <sys/vfs.h>
#define opendir(path) opendir(getenv("GIVEN"))
#define statfs(path, fs) statfs(getenv("GIVEN"), fs)
"#;

/// A line of each sort: plain, a space in the name, a byte that is no text, a line break, users
/// that look like numbers, and a line that is longer than 512 bytes.
fn modules() -> Vec<u8> {
    let mut lines = b"a 16384 0 - Live 0xffffffffc0000000\n\
        b c 16384 1 a, Live 0xffffffffc0001000 (OE)\n\
        d\xff 20480 -1 - Unloading 0xffffffffc0002000 (+)\n\
        e 0x1\nf 16384 - - Live 0xffffffffc0003000\n\
        g 16384 2 b c,x 1 2, Loading 0xffffffffc0004000\n\
        h 16384 99 "
        .to_vec();
    lines.extend("user_of_h,".repeat(200).bytes());
    lines.extend(b" Live 0xffffffffc0005000\n");
    lines
}

/// Compiles a trainer with `front` before its source; `None` without a compiler.
fn trainer(name: &str, front: &str, folder: &Path) -> Result<Option<PathBuf>, Failure> {
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guests");
    let header = folder.join(format!("{name}.h"));
    fs::write(&header, front)?;
    let out = folder.join(name);
    let mut command = Command::new("gcc");
    command.args(["-O2", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE=", "-include"]).arg(&header);
    command.arg("-I").arg(guests.join("include")).arg("-o").arg(&out);
    match command.arg(guests.join("trainers").join(format!("{name}.c"))).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("gcc is not installed: the trainers are not tested");
            Ok(None)
        }
        output => {
            let output = output?;
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Ok(Some(out))
        }
    }
}

/// A fresh folder.
fn folder(name: &str) -> Result<PathBuf, Failure> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // What an earlier run left.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// What a trainer prints.
fn says(trainer: &Path, argument: &str, given: &Path) -> Result<Vec<u8>, Failure> {
    Ok(Command::new(trainer).arg(argument).env("GIVEN", given).output()?.stdout)
}

#[test]
fn whatever_a_modules_name_holds_it_is_listed() -> Result<(), Failure> {
    let folder = folder("trainers-names")?;
    let given = folder.join("modules");
    fs::write(&given, modules())?;
    let Some(lsmod) = trainer("lsmod", MODULES, &folder)? else { return Ok(()) };
    let listed: Vec<String> = (0..6).map(|at| format!(" ffffffffc000{at}000")).collect();
    // A name may look like the end of a line: then there is one more, and none less.
    let expected = format!("rc 0 count 7:{} 1{}\n", listed[..3].concat(), listed[3..].concat());
    assert_eq!(String::from_utf8(says(&lsmod, "", &given)?)?, expected);

    let getdrvfile = trainer("getdrvfile", MODULES, &folder)?.ok_or("gcc is gone")?;
    for (at, name) in [&b"a"[..], b"b c", b"d\xff", b"f", b"g", b"h"].iter().enumerate() {
        let base = format!("ffffffffc000{at}000");
        let expected = [format!("base {base} rc 0 name ").as_bytes(), name, b"\n"].concat();
        assert_eq!(says(&getdrvfile, &base, &given)?, expected, "{base}");
    }
    assert_eq!(says(&getdrvfile, "5", &given)?, b"base 5 rc -2 name \n");

    let modnames = trainer("modnames", MODULES, &folder)?.ok_or("gcc is gone")?;
    assert_eq!(says(&modnames, "", &given)?, b"rc 0 names a b c d\xff e f g h \n");

    // A list that ends in the middle of a line is no list.
    let cut = modules();
    fs::write(&given, &cut[..cut.len() - 40])?;
    assert!(says(&lsmod, "", &given)?.starts_with(b"rc -5 count 6:"));
    fs::write(&given, b"e\nf 16384 0 - Live 0xffffffffc0003000\n")?;
    assert_eq!(says(&lsmod, "", &given)?, b"rc 0 count 1: ffffffffc0003000\n");
    assert_eq!(says(&modnames, "", &given)?, b"rc 0 names e\nf \n");
    Ok(())
}

#[test]
fn what_is_no_procfs_is_not_asked() -> Result<(), Failure> {
    let folder = folder("trainers-procfs")?;
    fs::create_dir(folder.join("1"))?;
    for (name, expected) in [("pslist", "rc -40864 count 0:\n"), ("getpsfile", "pid 1 rc -40864 path \n")] {
        let Some(trainer) = trainer(name, DIRECTORY, &folder)? else { return Ok(()) };
        assert_eq!(String::from_utf8(says(&trainer, "1", &folder)?)?, expected);
        let real = String::from_utf8(says(&trainer, "1", Path::new("/proc"))?)?;
        assert!(!real.contains("-40864"), "{real}");
    }
    Ok(())
}
