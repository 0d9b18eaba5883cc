//! The trainers that are part of the command: what `train` records when it is told of none.
//!
//! Their sources are `guests/trainers/basic` and `guests/trainers/files`; `build.rs` compiles them.

/// A trainer that is at hand as executables.
#[derive(Clone, Copy, Debug)]
pub struct Builtin {
    /// Its name, which is its program's too.
    pub name: &'static str,
    /// The executable for 64-bit kernels.
    pub x86_64: &'static [u8],
    /// The executable for 32-bit kernels, which 64-bit ones run too.
    pub i386: &'static [u8],
}

/// All of them.
pub const BUILTINS: &[Builtin] = include!(concat!(env!("OUT_DIR"), "/builtins.rs"));

#[cfg(test)]
mod tests {
    use super::*;

    /// The type and the machine of an ELF file.
    fn kind(elf: &[u8]) -> (u8, u8, u8) {
        assert_eq!(&elf[..4], b"\x7fELF");
        (elf[4], elf[16], elf[18])
    }

    #[test]
    fn each_is_an_executable_for_both_that_needs_nothing_else() {
        let names: Vec<&str> = BUILTINS.iter().map(|it| it.name).collect();
        for name in ["pslist", "getpsfile", "lsmod", "getdrvfile", "getpid", "gettime", "pidprobe"] {
            assert!(names.contains(&name), "{name}");
        }
        for name in ["readdir", "read", "stat", "readlink", "statfs", "listxattr", "getxattr"] {
            assert!(names.contains(&name), "{name}");
        }
        for it in BUILTINS {
            // 64 bit, executable (not position-independent), x86-64; 32 bit, the same, i386.
            assert_eq!((kind(it.x86_64), kind(it.i386)), ((2, 2, 62), (1, 2, 3)), "{}", it.name);
            for elf in [it.x86_64, it.i386] {
                let has = |text: &[u8]| elf.windows(text.len()).any(|bytes| bytes == text);
                assert!(!has(b"ld-linux") && !has(b"/home") && !has(b"crates"), "{}", it.name);
                assert!(has(&[0x0f, 0x1f, 0x80, 1, 0, 0x54, 0x56]), "{} has no begin mark", it.name);
                assert!(elf.len() < 16_384, "{}: {}", it.name, elf.len());
            }
        }
    }
}
