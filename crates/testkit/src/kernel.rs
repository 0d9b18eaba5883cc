//! The guest kernel: the unpacked distribution package in the cache, and its modules in load order.
//!
//! Dependencies come from the modules themselves (`depends=` in `.modinfo`), because the packages carry no
//! `modules.dep` and running `depmod` would need the `kmod` package. What a module asks for by name only at run time
//! (ext4's checksum) the caller lists.

use crate::{Error, Result, layout};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A kernel in the cache.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Its release, as `uname -r` prints it.
    pub release: String,
    /// The bootable image.
    pub image: PathBuf,
    modules: BTreeMap<String, PathBuf>,
}

/// One module, ready for the guest.
#[derive(Debug, Clone)]
pub struct Module {
    /// Name as in `/proc/modules`.
    pub name: String,
    /// The uncompressed object file.
    pub object: Vec<u8>,
}

/// The file in [`layout::kernels`] that names the directory in use. Set-up writes it last.
pub const CURRENT: &str = "current";

impl Kernel {
    /// The kernel that set-up has chosen.
    pub fn find() -> Result<Self> {
        let marker = layout::kernels().join(CURRENT);
        let name =
            std::fs::read_to_string(&marker).map_err(|_| Error::Missing { what: "the guest kernel".to_owned() })?;
        Self::in_directory(&layout::kernels().join(name.trim()))
    }

    /// The kernel of an unpacked package.
    pub fn in_directory(directory: &Path) -> Result<Self> {
        let missing = || Error::Missing { what: format!("the kernel in {}", directory.display()) };
        let boot = directory.join("boot");
        let mut releases: Vec<String> = std::fs::read_dir(&boot)
            .map_err(|_| missing())?
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("vmlinuz-").map(str::to_owned))
            .collect();
        releases.sort();
        let release = releases.pop().ok_or_else(missing)?;
        let image = boot.join(format!("vmlinuz-{release}"));
        let mut modules = BTreeMap::new();
        for lib in ["lib/modules", "usr/lib/modules"] {
            collect(&directory.join(lib).join(&release), &mut modules);
        }
        Ok(Self { release, image, modules })
    }

    /// The named modules and everything they depend on, dependencies first. Names this kernel has no module for
    /// (built in, or not packaged) are left out: guests must not depend on a particular module.
    pub fn modules(&self, names: &[&str]) -> Result<Vec<Module>> {
        let mut order = Vec::new();
        let mut seen = Vec::new();
        for name in names {
            self.visit(name, &mut seen, &mut order)?;
        }
        Ok(order)
    }

    fn visit(&self, name: &str, seen: &mut Vec<String>, order: &mut Vec<Module>) -> Result<()> {
        let name = name.replace('-', "_");
        if seen.contains(&name) {
            return Ok(());
        }
        seen.push(name.clone());
        let Some(path) = self.modules.get(&name) else { return Ok(()) };
        let object = read_module(path)?;
        for needed in depends(&object) {
            self.visit(&needed, seen, order)?;
        }
        order.push(Module { name, object });
        Ok(())
    }
}

/// Finds all modules below `directory` by name.
fn collect(directory: &Path, into: &mut BTreeMap<String, PathBuf>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&path, into);
        } else if let Some((stem, ending)) = path.file_name().and_then(|name| name.to_str()?.split_once('.'))
            && matches!(ending, "ko" | "ko.xz" | "ko.zst")
        {
            into.insert(stem.replace('-', "_"), path.clone());
        }
    }
}

/// The object file, uncompressed with the distribution's own tools where it is compressed.
fn read_module(path: &Path) -> Result<Vec<u8>> {
    let tool = match path.extension().and_then(|ending| ending.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return std::fs::read(path).map_err(Error::io(path)),
    };
    let output = Command::new(tool).arg("-dc").arg(path).output().map_err(Error::io(tool))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(Error::Command {
            program: format!("{tool} -dc {}", path.display()),
            status: output.status.to_string(),
            output: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

/// The names after `depends=` in the module's information.
fn depends(object: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = object.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let value = &object[at + KEY.len()..];
    let value = &value[..value.iter().position(|&byte| byte == 0).unwrap_or(value.len())];
    String::from_utf8_lossy(value).split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_the_module_information() {
        assert_eq!(depends(b"\x7fELF..\0license=GPL\0depends=mbcache,jbd2\0name=ext4\0"), ["mbcache", "jbd2"]);
        assert_eq!(depends(b"..\0depends=\0name=dummy\0"), Vec::<String>::new());
        assert_eq!(depends(b"nothing"), Vec::<String>::new());
    }
}
