//! The guest kernels: unpacked distribution packages in the cache.

use crate::userland::Userland;
use crate::{Error, Result, layout};
use linux::Modules;
use std::path::{Path, PathBuf};
use std::process::Command;

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
        let Some((tool, payload)) = payload(&image) else { return Ok(self.image.clone()) };
        let packed = layout::part_name(&path);
        layout::write(&packed, payload)?;
        let output = Command::new(tool).arg("-dc").arg(&packed).output();
        // Left behind at worst in the cache.
        let _ = std::fs::remove_file(&packed);
        match output {
            Ok(output) if output.stdout.starts_with(b"\x7fELF") => {
                layout::write(&path, &output.stdout)?;
                Ok(path)
            }
            _ => Ok(self.image.clone()),
        }
    }
}

/// The packed kernel inside a `bzImage` (Linux boot protocol 2.08 and later) and the program that
/// unpacks it. The last four bytes are its size and belong to no format.
fn payload(image: &[u8]) -> Option<(&'static str, &[u8])> {
    let number = |at: usize| {
        let bytes = image.get(at..at + 4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
    };
    if image.get(0x202..0x206)? != b"HdrS" {
        return None;
    }
    let sectors = match image.get(0x1f1)? {
        0 => 4,
        &count => usize::from(count),
    };
    let from = ((sectors + 1) * 512).checked_add(number(0x248)?)?;
    let to = from.checked_add(number(0x24c)?)?.checked_sub(4)?;
    let payload = image.get(from..to)?;
    let tool = match payload.get(..4)? {
        [0xfd, b'7', b'z', b'X'] => "xz",
        [0x28, 0xb5, 0x2f, 0xfd] => "zstd",
        [0x1f, 0x8b, ..] => "gzip",
        _ => return None,
    };
    Some((tool, payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_of_a_boot_image_is_found_and_a_cut_one_is_not() {
        let mut image = vec![0; 2048];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&12u32.to_le_bytes());
        image[1040..1048].copy_from_slice(b"\xfd7zXZ\0ab");
        assert_eq!(payload(&image), Some(("xz", &b"\xfd7zXZ\0ab"[..])));
        assert_eq!(payload(&image[..1044]), None);
        assert_eq!(payload(b"MZ"), None);
    }
}
