//! Running other programs: shown or captured, with errors that name the command.
//!
//! Thin on purpose: no pipelines, no shell, arguments as lists.

use std::process::{Command, Stdio};

/// The output of `program`, or why there is none.
pub fn output(program: &str, arguments: &[&str]) -> Result<String, String> {
    let command = line(program, arguments);
    let result = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .env("LC_ALL", "C")
        .output()
        .map_err(|error| format!("`{command}`: {error}"))?;
    if result.status.success() {
        return Ok(String::from_utf8_lossy(&result.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&result.stderr);
    Err(format!("`{command}` failed ({}): {}", result.status, said.trim()))
}

/// Runs `command` with its output on our terminal.
pub fn show(command: &mut Command) -> Result<(), String> {
    let text = format!("{command:?}").replace('"', "");
    let status = command.status().map_err(|error| format!("`{text}`: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("`{text}` failed ({status})")) }
}

/// Whether `program` can be started at all.
pub fn exists(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(program).is_file()))
}

fn line(program: &str, arguments: &[&str]) -> String {
    std::iter::once(program).chain(arguments.iter().copied()).collect::<Vec<_>>().join(" ")
}
