//! Packages of another architecture, fetched and unpacked without this machine's apt hearing of it.
//!
//! apt gets a state of its own in the cache: the host's sources and keys, another architecture, no
//! installed packages. Nothing is installed and no root is needed. The host's own lists and
//! architectures stay as they are.

use crate::outcome::Outcome;
use crate::shell;
use std::path::{Path, PathBuf};
use std::process::Command;

/// apt's state for one architecture.
pub struct Foreign {
    options: Vec<String>,
}

impl Foreign {
    /// A new state in `directory` for the Debian architecture `name`, with fresh package lists.
    pub fn new(name: &str, directory: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        for part in ["state/lists/partial", "cache/archives/partial"] {
            std::fs::create_dir_all(directory.join(part))?;
        }
        std::fs::write(directory.join("status"), "")?;
        let path = |part: &str| directory.join(part).to_string_lossy().into_owned();
        let options = [
            format!("APT::Architecture={name}"),
            format!("APT::Architectures::={name}"),
            format!("Dir::State={}", path("state")),
            format!("Dir::State::status={}", path("status")),
            format!("Dir::Cache={}", path("cache")),
            "APT::Sandbox::User=root".to_owned(),
        ];
        let options = options.into_iter().flat_map(|option| ["-o".to_owned(), option]).collect();
        let foreign = Self { options };
        // It fails when one of several sources does not have the architecture; what was wanted is
        // then missed below.
        let _ = foreign.apt("apt-get", &["-q", "-q", "update"]);
        Ok(foreign)
    }

    /// What a package depends on, as far as it begins with `prefix`; the newest version's.
    pub fn dependency(&self, package: &str, prefix: &str) -> Option<String> {
        let text = self.apt("apt-cache", &["--no-all-versions", "show", package]).ok()?;
        crate::apt::depends(&text, prefix).pop()
    }

    /// Names of known packages that begin with `prefix`.
    pub fn names(&self, prefix: &str) -> Vec<String> {
        let text = self.apt("apt-cache", &["pkgnames", prefix]).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Downloads packages into `directory` and unpacks them there.
    pub fn unpack(&self, packages: &[String], directory: &Path) -> Outcome {
        let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
        // `apt-get download` writes into the current directory.
        let output = self
            .command("apt-get")
            .args(["-q", "-q", "download"])
            .args(&packages)
            .current_dir(directory)
            .output()?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(format!("could not fetch {}: {}", packages.join(", "), why.trim()).into());
        }
        unpack_all(directory)
    }

    fn apt(&self, program: &str, arguments: &[&str]) -> Result<String, String> {
        let words: Vec<&str> =
            self.options.iter().map(String::as_str).chain(arguments.iter().copied()).collect();
        shell::output(program, &words)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options);
        command
    }
}

/// Unpacks every package file in `directory` there and removes it.
pub fn unpack_all(directory: &Path) -> Outcome {
    let files: Vec<PathBuf> = std::fs::read_dir(directory)?.flatten().map(|entry| entry.path()).collect();
    for path in files.into_iter().filter(|path| path.extension().is_some_and(|ending| ending == "deb")) {
        shell::output("dpkg-deb", &["-x", &path.to_string_lossy(), &directory.to_string_lossy()])?;
        std::fs::remove_file(&path)?;
    }
    Ok(())
}
