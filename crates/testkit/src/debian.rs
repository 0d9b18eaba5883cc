//! A Debian as a user would have it: installed from the archive, systemd, an ext4 root on a virtio
//! disk, an initrd, the distribution's kernel with its default parameters, two processors, a
//! network, an ordinary user with a busy process.
//!
//! mmdebstrap installs it without booting it; which archive, this machine's own apt knows. The disk
//! lies in the cache and is only read: what a guest writes is gone with it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::guest::{Guest, READY};
use crate::initramfs::{modified, newest, walk};
use crate::kernel::{DEFAULT, Kernel};
use crate::userland::Userland;
use crate::{Error, Result, layout};

/// The release whose kernel is the guests' default one.
const RELEASE: &str = "bookworm";

/// What is installed beside the base system: what the installer gives with its standard utilities,
/// as far as something runs or is loaded because of it.
const PACKAGES: &str = "systemd-sysv,dbus,dbus-user-session,libpam-systemd,systemd-timesyncd,udev,\
    initramfs-tools,zstd,ifupdown,isc-dhcp-client,iproute2,procps,kmod,less,sudo,openssh-server,cron,\
    rsyslog,login,passwd,e2fsprogs,xfsprogs,btrfs-progs,nano,perl,bash-completion";

/// The file system's name on the kernel command line, as the installer would have made one up.
const UUID: &str = "5f3b1c1e-9d0c-4d43-8a57-6c1d9a1f0a11";

/// What a walk of it goes through: what is not on the disk, and enough of what is.
pub const ROOTS: &str =
    "/proc /sys /dev /run /tmp /etc /home /usr/bin /usr/lib/x86_64-linux-gnu /var/lib/dpkg";

/// The same with [`Debian::disks`]: what is on them.
pub const ROOTS_ON_DISKS: &str = "/proc /sys/fs /etc /srv/xfs /srv/btrfs";

/// Of the second and third disk, in bytes: xfs takes no less than 300 MiB.
const DISK: u64 = 512 << 20;

/// An installed Debian.
#[derive(Debug, Clone)]
pub struct Debian {
    /// The kernel.
    pub kernel: PathBuf,
    /// Its initrd.
    pub initrd: PathBuf,
    /// The disk.
    pub disk: PathBuf,
}

impl Debian {
    /// The one in the cache, installed if it is not there or older than its sources.
    ///
    /// # Errors
    /// A tool is missing, or what it says.
    pub fn find() -> Result<Self> {
        let kernel = Kernel::find(DEFAULT)?;
        let directory = layout::cache().join("debian").join(&kernel.release);
        let found = Self {
            kernel: directory.join("vmlinuz"),
            initrd: directory.join("initrd"),
            disk: directory.join("disk"),
        };
        let program = walk(Userland::Amd64)?;
        let sources = newest(&layout::guests().join("debian")).max(modified(&program));
        if modified(&found.disk) <= sources {
            install(&kernel, &program, &found)?;
        }
        Ok(found)
    }

    /// What its command line needs for two empty disks, on which the guest's command `disks` makes
    /// other file systems.
    ///
    /// # Errors
    /// They cannot be made.
    pub fn disks(&self) -> Result<Vec<OsString>> {
        let empty = self.disk.with_file_name("empty");
        let file = std::fs::File::create(&empty).map_err(Error::io(&empty))?;
        file.set_len(DISK).map_err(Error::io(&empty))?;
        let mut drive = OsString::from("if=virtio,format=raw,snapshot=on,file=");
        drive.push(&empty);
        let drive = ["-drive".into(), drive];
        Ok([drive.clone(), drive].concat())
    }

    /// Boots it and waits until all has started; `qemu` are more arguments.
    ///
    /// # Errors
    /// What QEMU says, or the guest in its last lines.
    pub fn boot(&self, qemu: &[OsString]) -> Result<Guest> {
        let fixed = "-machine q35 -accel tcg,thread=multi -cpu max,la57=off -m 1024 -smp 2 -nodefaults \
                     -no-user-config -no-reboot -display none -vga std -nic user,model=virtio-net-pci \
                     -device virtio-rng-pci -chardev stdio,id=console,signal=off -serial chardev:console";
        let mut argv: Vec<OsString> = vec!["qemu-system-x86_64".into()];
        argv.extend(fixed.split_whitespace().map(OsString::from));
        argv.extend(["-kernel".into(), self.kernel.clone().into()]);
        argv.extend(["-initrd".into(), self.initrd.clone().into()]);
        argv.extend(["-append".into(), format!("root=UUID={UUID} ro quiet").into()]);
        let mut drive = OsString::from("if=virtio,format=raw,snapshot=on,file=");
        drive.push(&self.disk);
        argv.extend(["-drive".into(), drive]);
        argv.extend(qemu.iter().cloned());
        let guest = Guest::boot(&argv)?;
        guest.wait_for(READY, 0, Duration::from_secs(900))?;
        Ok(guest)
    }
}

/// Installs one, by files beside their final names.
fn install(kernel: &Kernel, program: &Path, into: &Debian) -> Result<()> {
    let parent = into.disk.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
    let work = layout::part_name(&parent.join("work"));
    std::fs::create_dir_all(&work).map_err(Error::io(&work))?;
    let installed = installed(kernel, program, into, &work);
    // A failure that is reported is the one before.
    let _ = std::fs::remove_dir_all(&work);
    installed
}

fn installed(kernel: &Kernel, program: &Path, into: &Debian, work: &Path) -> Result<()> {
    let tar = work.join("root.tar");
    let scripts = layout::guests().join("debian");
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--variant=apt", "--format=tar"]);
    command.arg(format!("--include={PACKAGES},linux-image-{}", kernel.release));
    command.arg(format!(
        "--customize-hook='{0}/customize' \"$1\" '{0}' '{1}'",
        scripts.display(),
        program.display()
    ));
    command.arg(RELEASE).arg(&tar).args(sources()?);
    run(&mut command, "mmdebstrap")?;
    // Who is not root owns nothing of it but by fakeroot's word.
    let script = format!(
        "mkdir root && tar -xf root.tar -C root --exclude='./dev/*' && mke2fs -q -t ext4 -U {UUID} -L root \
         -d root disk 2G && cp root/boot/vmlinuz-{0} vmlinuz && cp root/boot/initrd.img-{0} initrd",
        kernel.release
    );
    run(Command::new("fakeroot").args(["sh", "-c", &script]).current_dir(work), "fakeroot, e2fsprogs")?;
    let read = |path: &Path| std::fs::read(path).map_err(Error::io(path));
    if read(&work.join("vmlinuz"))? != read(&kernel.image)? {
        return Err(Error::Needed {
            what: format!("the kernel {} that the archive has now", kernel.release),
            next: format!(
                "{} holds another build: remove it and run `cargo xtask setup`",
                layout::kernels().display()
            ),
        });
    }
    for (name, path) in [("vmlinuz", &into.kernel), ("initrd", &into.initrd), ("disk", &into.disk)] {
        std::fs::rename(work.join(name), path).map_err(Error::io(path))?;
    }
    Ok(())
}

/// The lines for apt that this machine has for the release and its updates.
fn sources() -> Result<Vec<String>> {
    let format = "$(RELEASE)|$(COMPONENT)|$(REPO_URI)";
    let mut command = Command::new("apt-get");
    command.args(["indextargets", "--format", format, "Created-By: Packages"]);
    let text = run(&mut command, "apt")?;
    let wanted = [RELEASE.to_owned(), format!("{RELEASE}-security"), format!("{RELEASE}-updates")];
    let line = |line: &str| {
        let mut columns = line.split('|');
        let (release, component, address) = (columns.next()?, columns.next()?, columns.next()?);
        let is = component == "main" && wanted.iter().any(|it| it == release);
        is.then(|| format!("deb {address} {release} main"))
    };
    let mut lines: Vec<String> = text.lines().filter_map(line).collect();
    lines.dedup();
    if lines.is_empty() {
        return Err(Error::Needed {
            what: format!("a Debian archive with `{RELEASE} main`"),
            next: "add one to this machine's apt sources, the Debian targets are made from it".to_owned(),
        });
    }
    Ok(lines)
}

/// Runs a command of one of these packages; what it printed.
fn run(command: &mut Command, packages: &str) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let missing = |_| Error::Needed { what: program.clone(), next: format!("install {packages}") };
    let output = command.output().map_err(missing)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::Command {
        program,
        status: output.status.to_string(),
        output: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
