//! The code of a kernel's modules, put into a pack as relocatable objects, and what the kernel's
//! own tables say that it writes into its code.
//!
//! Training loads a few modules; the guests that are asked about later have others, elsewhere.
//! Their files come with the kernel and are as trusted as that. They name the kernel's symbols by
//! their addresses in the training guest, where it lies as it was linked: whether the image is the
//! one that was trained is compared.

use std::path::{Path, PathBuf};

use ir::System;
use linux::{Exports, Linker, Modules};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::files;
use crate::statistics::modules_name;

/// A file of modules that was written.
#[derive(Debug)]
pub struct Written {
    /// The file.
    pub path: PathBuf,
    /// How many modules it has.
    pub modules: usize,
    /// Its size.
    pub bytes: usize,
    /// Modules that are in it without some of their code: they name symbols that neither the kernel
    /// nor another module has.
    pub lacking: Vec<String>,
    /// Files that are no modules.
    pub foreign: Vec<String>,
}

/// How many pages of the kernel's code are compared.
const PAGES: usize = 64;

/// Writes the modules below some directories into a pack of this kernel.
///
/// # Errors
/// The image or a module cannot be read, or the pack is of another kernel.
pub fn write(
    pack: &Path,
    (path, image): (&Path, &[u8]),
    directories: &[PathBuf],
) -> Result<Written, Failure> {
    let kernel = linux::kernel_proper(image).ok_or_else(|| {
        Failure::file(
            path,
            "the kernel in this image cannot be unpacked; give vmlinuz or vmlinux as the package has it",
        )
    })?;
    let exports = Exports::read(&kernel)
        .ok_or_else(|| Failure::file(path, "this kernel has no symbols for modules; leave --modules out"))?;
    let system = system_of(pack, &exports)?.ok_or_else(|| {
        let text = format!("{}: the pack is of another kernel than {}", pack.display(), path.display());
        Failure::new(
            Exit::OtherKernel,
            format!("{text}; give the image and the modules that it was trained with"),
        )
    })?;
    let (mut linker, mut foreign) = (Linker::default(), Vec::new());
    for module in directories.iter().flat_map(|it| Modules::below(it).all().collect::<Vec<_>>()) {
        let module = module.map_err(Failure::input)?;
        if !linker.add(&module) {
            foreign.push(module.name);
        }
    }
    let objects = linker.link(&exports);
    let unknown =
        |object: &&ir::relocatable::Object| object.symbols.contains(&ir::relocatable::Symbol::Unknown);
    let lacking = objects.iter().filter(unknown).map(|object| object.name.clone()).collect();
    let own = linux::own(&kernel, &system);
    // Systems of 64 bits lie in the upper half of the address space.
    let mode = if exports.text.0 > u32::MAX.into() { lift::Mode::Bits64 } else { lift::Mode::Bits32 };
    let decisions = ir::relocatable::Decisions::of(&own.sites, |form| lift::decision(mode, form));
    let bytes =
        ir::Objects::to_bytes(system.hash(), &objects, &own, &decisions).map_err(crate::built::internal)?;
    let path = pack.join(modules_name(&system.hash()));
    files::write(&path, &bytes)?;
    Ok(Written { path, modules: objects.len(), bytes: bytes.len(), lacking, foreign })
}

/// The companion file in a pack that has this kernel's code.
fn system_of(pack: &Path, kernel: &Exports) -> Result<Option<System>, Failure> {
    let entries = std::fs::read_dir(pack)
        .map_err(|error| Failure::file(pack, format!("cannot read it: {error}; give a pack's directory")))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let companions = paths.iter().filter(|path| path.extension().is_some_and(|it| it == "system"));
    for path in companions {
        let system = files::system(path)?;
        if is_of(&system, kernel) {
            return Ok(Some(system));
        }
    }
    Ok(None)
}

/// Whether a companion file has a kernel's code at the addresses it was linked for. What a kernel
/// writes into its code when it boots are no ten in a hundred bytes.
fn is_of(system: &System, kernel: &Exports) -> bool {
    let (start, code) = &kernel.text;
    let pages: Vec<(u64, &[u8])> = system.pages_in(*start..start + code.len() as u64).collect();
    let step = pages.len() / PAGES + 1;
    let (mut same, mut all) = (0usize, 0usize);
    for (address, bytes) in pages.into_iter().step_by(step) {
        let from = (address - start) as usize;
        let Some(linked) = code.get(from..).map(|rest| &rest[..rest.len().min(bytes.len())]) else {
            continue;
        };
        same += bytes.iter().zip(linked).filter(|(a, b)| a == b).count();
        all += linked.len();
    }
    all > 0 && same * 4 >= all * 3
}
