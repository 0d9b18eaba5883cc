//! The guest kernels: unpacked distribution packages in the cache.

use crate::userland::Userland;
use crate::{Error, Result, layout};
use linux::Modules;
use std::path::{Path, PathBuf};

/// A kernel in the cache.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Its release, as `uname -r` prints it.
    pub release: String,
    /// The image as packaged (`bzImage`), which can place itself at random.
    pub image: PathBuf,
    /// The directory of its modules.
    pub libraries: PathBuf,
    /// What its programs are compiled for.
    pub userland: Userland,
    /// The modules packaged with it. Guests must not depend on a particular one.
    pub modules: Modules,
}

/// The kernel of guests that ask for no other.
pub const DEFAULT: &str = "default";

/// The 32-bit kernel, with physical addresses of more than 32 bits (PAE).
pub const I386: &str = "i386";

/// Other builds, which set-up fetches where the archive has them: for virtual machines, with
/// real-time scheduling, the distribution's newest, and the one for 32-bit processors.
pub const OTHERS: [&str; 4] = ["cloud", "rt", "backports", I386];

/// The file that names the directory of the kernel called `name`. Set-up writes it last.
#[must_use]
pub fn marker(name: &str) -> PathBuf {
    layout::kernels().join(format!("{name}.kernel"))
}

impl Kernel {
    /// The kernel called [`DEFAULT`], or one of [`OTHERS`].
    ///
    /// # Errors
    /// [`Error::Missing`] when set-up has not fetched it.
    pub fn find(name: &str) -> Result<Self> {
        let directory = std::fs::read_to_string(marker(name))
            .map_err(|_| Error::Missing { what: format!("the {name} guest kernel") })?;
        Self::in_directory(&layout::kernels().join(directory.trim()))
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
        let libraries = ["lib/modules", "usr/lib/modules"].map(|lib| directory.join(lib).join(&release));
        let libraries = libraries.into_iter().find(|path| path.is_dir()).ok_or_else(missing)?;
        // Debian's 32-bit kernels are called for the processors they are for: 686, 686-pae.
        let userland = if release.contains("-686") { Userland::I386 } else { Userland::Amd64 };
        Ok(Self { release, image, userland, modules: Modules::below(&libraries), libraries })
    }

    /// The kernel proper, unpacked from the image into the cache: boots in half the time, always at
    /// the address it was linked for. The packaged image itself where it cannot be unpacked here.
    pub fn unpacked(&self) -> Result<PathBuf> {
        let path = layout::build().join(format!("vmlinux-{}", self.release));
        let time = |path: &Path| path.metadata().and_then(|data| data.modified()).ok();
        if path.is_file() && time(&path) >= time(&self.image) {
            return Ok(path);
        }
        let image = std::fs::read(&self.image).map_err(Error::io(&self.image))?;
        let Some(kernel) = linux::kernel_proper(&image) else { return Ok(self.image.clone()) };
        layout::write(&path, &kernel)?;
        Ok(path)
    }
}
