//! Kernel modules below a directory, and the order to load them in.
//!
//! Dependencies come from the modules themselves (`depends=` in `.modinfo`), because kernel
//! packages carry no `modules.dep` and running `depmod` would need the `kmod` package. What a
//! module asks for by name only at run time (ext4's checksum) the caller lists.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::unpack::unpack;

/// The modules of one kernel.
#[derive(Debug, Clone, Default)]
pub struct Modules(BTreeMap<String, PathBuf>);

/// One module, ready for the guest.
#[derive(Debug, Clone)]
pub struct Module {
    /// Name as in `/proc/modules`.
    pub name: String,
    /// The uncompressed object file.
    pub object: Vec<u8>,
}

/// Why a module cannot be used: it cannot be read or unpacked.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct Error {
    /// The file.
    path: PathBuf,
    /// What is wrong.
    source: std::io::Error,
}

impl Module {
    /// The modules it must be loaded after.
    #[must_use]
    pub fn depends(&self) -> Vec<String> {
        depends(&self.object)
    }
}

impl Modules {
    /// All modules below a directory, by name. Nothing is read yet.
    #[must_use]
    pub fn below(directory: &Path) -> Self {
        let mut found = Self::default();
        found.collect(directory);
        found
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is one of this name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(&plain(name))
    }

    /// All of them, one after the other, by name.
    pub fn all(&self) -> impl Iterator<Item = Result<Module, Error>> + '_ {
        let module =
            |(name, path): (&String, &PathBuf)| Ok(Module { name: name.clone(), object: read(path)? });
        self.0.iter().map(module)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The named modules and everything they depend on, dependencies first. Names without a module
    /// (built in, or not packaged) are left out.
    ///
    /// # Errors
    /// [`Error`] when one cannot be read.
    pub fn load_order(&self, names: &[&str]) -> Result<Vec<Module>, Error> {
        let mut order = Vec::new();
        let mut seen = Vec::new();
        for name in names {
            self.visit(name, &mut seen, &mut order)?;
        }
        Ok(order)
    }

    fn visit(&self, name: &str, seen: &mut Vec<String>, order: &mut Vec<Module>) -> Result<(), Error> {
        let name = plain(name);
        if seen.contains(&name) {
            return Ok(());
        }
        seen.push(name.clone());
        let Some(path) = self.0.get(&name) else { return Ok(()) };
        let object = read(path)?;
        for needed in depends(&object) {
            self.visit(&needed, seen, order)?;
        }
        order.push(Module { name, object });
        Ok(())
    }

    fn collect(&mut self, directory: &Path) {
        let Ok(entries) = std::fs::read_dir(directory) else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.collect(&path);
            } else if let Some((stem, ending)) =
                path.file_name().and_then(|name| name.to_str()?.split_once('.'))
                && matches!(ending, "ko" | "ko.xz" | "ko.zst" | "ko.gz")
            {
                self.0.insert(plain(stem), path.clone());
            }
        }
    }
}

/// File names may have hyphens where the kernel's names have underscores.
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

/// The object file, unpacked where it is packed.
fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let io = |source| Error { path: path.to_owned(), source };
    std::fs::read(path).and_then(unpack).map_err(io)
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
        assert_eq!(
            depends(b"\x7fELF..\0license=GPL\0depends=mbcache,jbd2\0name=ext4\0"),
            ["mbcache", "jbd2"]
        );
        assert_eq!(depends(b"..\0depends=\0name=dummy\0"), Vec::<String>::new());
        assert_eq!(depends(b"nothing"), Vec::<String>::new());
    }
}
