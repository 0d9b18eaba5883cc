//! The targets whose files are compared.

use std::path::PathBuf;
use std::time::Duration;

use testkit::capture::{Moment, tell};
use testkit::debian::{Debian, ROOTS, ROOTS_ON_DISKS};
use testkit::guest::{self, boot_target, run_file};
use testkit::kernel::{DEFAULT, Kernel, OTHERS};
use testkit::walk::{Wanted, capture_walked, port};

use crate::outcome::{Failure, Outcome};

/// A target.
pub struct Target {
    /// Its name.
    pub name: String,
    /// Which kernel it runs.
    pub kernel: &'static str,
    /// What it is, for people.
    pub about: String,
    guest: Guest,
}

enum Guest {
    /// Of the tests, with its root in memory.
    Initramfs(Box<guest::Target>, Moment),
    /// An installed one.
    Debian {
        /// With its caches emptied before.
        dropped: bool,
        /// With other file systems on more disks.
        disks: bool,
    },
}

/// A capture.
pub struct Place {
    /// The dump.
    pub elf: PathBuf,
    /// What the guest says.
    pub truth: PathBuf,
}

/// What a guest whose root is in memory walks: that, and what the roots of its containers have.
const EVERYTHING: &str = "/ /proc/[0-9]*/root/container";

impl Target {
    fn wanted(&self) -> Result<Wanted, Failure> {
        let (moment, dropped) = match &self.guest {
            Guest::Initramfs(_, moment) => (*moment, false),
            Guest::Debian { dropped, .. } => (Moment::Any, *dropped),
        };
        Ok(Wanted { stem: run_file(&format!("files-{}", self.name))?, moment, dropped })
    }

    /// Where its capture is.
    pub fn place(&self) -> Result<Place, Failure> {
        let wanted = self.wanted()?;
        Ok(Place { elf: wanted.elf(), truth: wanted.truth() })
    }

    /// Boots it, has it walk, and captures it in between.
    pub fn capture(&self) -> Outcome {
        let log = run_file(&format!("files-{}.walks", self.name))?;
        // QEMU only appends.
        if log.exists() {
            std::fs::remove_file(&log)?;
        }
        let (mut guest, roots) = match &self.guest {
            Guest::Initramfs(options, _) => {
                let mut options = options.clone();
                options.qemu.extend(port(&log));
                (boot_target(&options, Duration::from_secs(600))?, EVERYTHING)
            }
            Guest::Debian { disks: false, .. } => (Debian::find()?.boot(&port(&log))?, ROOTS),
            Guest::Debian { .. } => {
                let debian = Debian::find()?;
                let mut guest = debian.boot(&[port(&log), debian.disks()?].concat())?;
                tell(&mut guest, "disks")?;
                (guest, ROOTS_ON_DISKS)
            }
        };
        Ok(capture_walked(&mut guest, &log, roots, &[self.wanted()?])?)
    }
}

/// All targets, of the kernels that are there.
fn all() -> Vec<Target> {
    let kernels = std::iter::once(DEFAULT).chain(OTHERS).filter(|name| Kernel::find(name).is_ok());
    let mut all: Vec<Target> = kernels.flat_map(of_kernel).collect();
    let about = "containers with overlays as their roots, and these roots";
    all.push(initramfs(DEFAULT, "containers", about, "overlays", &[], Moment::Idle));
    for (name, about, dropped, disks) in [
        ("warm", "what it has read in its page cache", false, false),
        ("cold", "caches dropped", true, false),
        ("disks", "xfs and btrfs on more disks", false, true),
    ] {
        all.push(Target {
            name: format!("debian-{name}"),
            kernel: DEFAULT,
            about: format!("Debian, systemd, ext4 on virtio, 2 processors, a busy user; {about}"),
            guest: Guest::Debian { dropped, disks },
        });
    }
    all
}

fn of_kernel(kernel: &'static str) -> Vec<Target> {
    let large = ["-smp", "4", "-cpu", "max"];
    let levels = if kernel == testkit::kernel::I386 { "PAE" } else { "5-level paging" };
    let busy = format!("4 processors, {levels}, a busy user, overlay and bind mounts");
    let mut busy = initramfs(kernel, "busy", &busy, "mounts", &large, Moment::Any);
    if let Guest::Initramfs(options, _) = &mut busy.guest {
        options.busy = true;
    }
    vec![
        initramfs(kernel, "idle", "idle; files of all kinds in tmpfs", "files", &[], Moment::Idle),
        busy,
        initramfs(kernel, "load", "paused in the kernel under load", "load", &[], Moment::AtWork),
    ]
}

fn initramfs(
    kernel: &'static str,
    name: &str,
    about: &str,
    state: &str,
    qemu: &[&str],
    moment: Moment,
) -> Target {
    let options = guest::Target {
        kernel: kernel.to_owned(),
        kaslr: true,
        append: format!("state={state}"),
        qemu: qemu.iter().map(Into::into).collect(),
        ..guest::Target::default()
    };
    Target {
        name: format!("{kernel}-{name}"),
        kernel,
        about: about.to_owned(),
        guest: Guest::Initramfs(Box::new(options), moment),
    }
}

/// Those with these names, or all.
pub fn chosen(names: &[String]) -> Result<Vec<Target>, Failure> {
    let all = all();
    if let Some(name) = names.iter().find(|name| all.iter().all(|target| target.name != **name)) {
        let known: Vec<&str> = all.iter().map(|target| target.name.as_str()).collect();
        return Err(format!("there is no target {name}; there are {}", known.join(", ")).into());
    }
    Ok(all.into_iter().filter(|target| names.is_empty() || names.contains(&target.name)).collect())
}
