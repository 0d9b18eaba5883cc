//! What a training guest runs: executables of the host with arguments.

use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::files;

/// A trainer with its arguments, as the guest runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The path of the executable on this machine.
    pub path: PathBuf,
    /// The arguments, which the guest's shell expands; empty if there are none.
    pub arguments: String,
}

impl Job {
    /// Reads `PATH [ARGUMENTS]`.
    ///
    /// # Errors
    /// There is no path, or a line break.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() || text.contains('\n') {
            return Err("give a trainer as PATH or \"PATH ARGUMENTS\" on one line".to_string());
        }
        // A path that exists may have spaces.
        let (path, arguments) = match text.split_once(char::is_whitespace) {
            Some((path, arguments)) if !Path::new(text).is_file() => (path, arguments.trim()),
            _ => (text, ""),
        };
        Ok(Self { path: path.into(), arguments: arguments.to_owned() })
    }

    /// The name of its file in the guest: the last part of the path here.
    #[must_use]
    pub fn name(&self) -> String {
        files::name(&self.path)
    }

    /// The line that the guest's shell runs.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{} {}", self.name(), self.arguments).trim_end().to_owned()
    }
}

/// The executables of the jobs, each once, with their bytes.
///
/// # Errors
/// One cannot be read, is no ELF file, or two have the same name.
pub fn executables(jobs: &[Job]) -> Result<Vec<(PathBuf, Vec<u8>)>, Failure> {
    let mut found: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    for job in jobs {
        if found.iter().any(|(path, _)| *path == job.path) {
            continue;
        }
        let name = job.name();
        if !name.chars().all(|c| c.is_ascii_alphanumeric() || "._-+".contains(c)) {
            let what =
                "its name would need quotes in the guest's shell; use letters, digits, '.', '-', '_', '+'";
            return Err(Failure::file(&job.path, what));
        }
        if let Some((other, _)) = found.iter().find(|(path, _)| files::name(path) == name) {
            let what =
                format!("{} has the same name, and both go into one folder; rename one", other.display());
            return Err(Failure::file(&job.path, what));
        }
        let bytes = files::read(&job.path, "trainer's ELF executable")?;
        if !bytes.starts_with(b"\x7fELF") {
            return Err(Failure::file(&job.path, "it is no ELF file; give the trainer's executable"));
        }
        found.push((job.path.clone(), bytes));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_a_path_and_what_the_guests_shell_makes_of_the_rest() {
        let job = Job::parse(" trainers/getpsfile  $(process sshd) 2 ").expect("a job");
        assert_eq!(
            (job.path.as_path(), job.arguments.as_str()),
            (Path::new("trainers/getpsfile"), "$(process sshd) 2")
        );
        assert_eq!(job.line(), "getpsfile $(process sshd) 2");
        assert_eq!(Job::parse("a/lsmod").expect("a job").line(), "lsmod");
        assert!(Job::parse("  ").is_err());
        assert!(Job::parse("a\nb").is_err());
    }

    #[test]
    fn what_is_no_program_is_refused_before_a_guest_is_booted() {
        let message = |text: &str| executables(&[Job::parse(text).expect("a job")]).unwrap_err().to_string();
        assert!(message("/nowhere/pslist").contains("check the path"));
        assert!(message(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).contains("no ELF file"));
        assert!(message("/nowhere/a;b").contains("quotes"));
    }
}
