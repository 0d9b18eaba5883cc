//! The C compiler's driver, which makes the tests' kernels and modules.

use std::io::Write;
use std::process::{Command, Stdio};

/// Runs the C compiler's driver over assembly.
pub fn cc(source: &str, arguments: &[&str]) -> Vec<u8> {
    let directory = std::env::temp_dir().join(format!(
        "virtuoso-linux-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    std::fs::create_dir_all(&directory).unwrap();
    let output = directory.join("out");
    let mut command = Command::new("cc");
    command.args(arguments).args(["-x", "assembler", "-", "-o"]).arg(&output).stdin(Stdio::piped());
    let mut child = command.spawn().expect("the C compiler, which builds this crate too");
    child.stdin.take().unwrap().write_all(source.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    let bytes = std::fs::read(&output).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    bytes
}
