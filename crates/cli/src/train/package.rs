//! A kernel out of a distribution's package: downloaded with this machine's own package manager, or
//! given as a file, and unpacked without being installed.
//!
//! Nothing of a package is executed, no script of it runs, and nothing is written but below a
//! directory of our own, which is removed afterwards.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use linux::{Banner, Package};

use crate::failure::Failure;
use crate::files;

/// A directory that is gone when it is no longer needed.
pub struct Workspace(PathBuf);

impl Workspace {
    /// A new directory in `parent`, which is made if need be: an unpacked kernel package has
    /// hundreds of megabytes, so it lies on the disk that the packs are on.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(parent: &Path) -> Result<Self, Failure> {
        let path = parent.join(format!(".virtuoso-package-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|error| {
            Failure::file(&path, format!("cannot make it: {error}; choose another --output"))
        })?;
        // `dpkg-deb` and the others are told to go there, wherever they are.
        let path = path.canonicalize().map_err(|error| Failure::file(&path, error))?;
        Ok(Self(path))
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // Best effort: what cannot be removed lies in the user's own directory.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A kernel image and its modules, unpacked.
pub struct Unpacked {
    /// The image.
    pub kernel: PathBuf,
    /// The directory of its modules.
    pub modules: Option<PathBuf>,
    /// What was unpacked: names and versions, or files.
    pub packages: Vec<String>,
}

/// How packages are unpacked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Debian's.
    Deb,
    /// Red Hat's and SUSE's.
    Rpm,
}

/// Downloads the packages of a kernel and unpacks them.
///
/// # Errors
/// It is not known whose the kernel is, or this machine's package manager does not have it: then
/// which files to fetch.
pub fn download(banner: &Banner, workspace: &Workspace) -> Result<Unpacked, Failure> {
    let Some(package) = Package::of(banner) else {
        return Err(Failure::input(format!(
            "nothing in {:?} says in which package that kernel came; give its image and modules with \
             --kernel and --modules, or its package with --deb or --rpm",
            banner.text()
        )));
    };
    let files = package.files.join(" and ");
    let option = if package.files.iter().any(|file| file.ends_with(".rpm")) { "--rpm" } else { "--deb" };
    let next = if package.files.iter().any(|file| file.contains(".pkg.")) {
        format!(
            "fetch {files}, unpack it, and give vmlinuz and the modules in it with --kernel and --modules"
        )
    } else {
        format!("fetch {files} and give each with {option}")
    };
    if !matches!(package.distribution, "Debian" | "Ubuntu") || !is_there("apt-get") {
        return Err(Failure::input(format!(
            "the kernel is one of {}, whose packages this machine does not download; {next}",
            package.distribution
        )));
    }
    let names = package.names.iter().map(|name| match &package.version {
        // Another version of the same name is another build, which would not fit.
        Some(version) => format!("{name}={version}"),
        None => name.clone(),
    });
    let names: Vec<String> = names.collect();
    for name in &names {
        let mut command = Command::new("apt-get");
        command.args(["-q", "-q", "download", "--", name]).current_dir(&workspace.0);
        run(&mut command).map_err(|why| {
            Failure::input(format!(
                "{why}\nthe package is not to be had here: refresh apt's lists (apt-get update) and ask \
                 again, or {next}"
            ))
        })?;
    }
    let entries = std::fs::read_dir(&workspace.0).map_err(|error| Failure::file(&workspace.0, error))?;
    let mut debs: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    debs.retain(|path| path.extension() == Some(OsStr::new("deb")));
    debs.sort();
    let unpacked = unpack(&debs, Kind::Deb, workspace)?;
    Ok(Unpacked { packages: names, ..unpacked })
}

/// Unpacks packages and finds the kernel in them.
///
/// # Errors
/// One cannot be unpacked, or they do not hold one kernel.
pub fn unpack(packages: &[PathBuf], kind: Kind, workspace: &Workspace) -> Result<Unpacked, Failure> {
    let root = workspace.0.join("root");
    std::fs::create_dir_all(&root).map_err(|error| Failure::file(&root, error))?;
    for package in packages {
        files::readable(package, "package")?;
        let unpacked = match kind {
            Kind::Deb => deb(package, &root),
            Kind::Rpm => rpm(package, &root),
        };
        unpacked.map_err(|why| Failure::file(package, format!("cannot unpack it: {why}")))?;
    }
    let names = packages.iter().map(|path| files::name(path)).collect();
    find(&root, names)
}

fn deb(package: &Path, root: &Path) -> Result<(), String> {
    if !is_there("dpkg-deb") {
        return Err(
            "there is no dpkg-deb here; install Debian's package dpkg, or give the unpacked files with \
                    --kernel and --modules"
                .to_owned(),
        );
    }
    run(Command::new("dpkg-deb").arg("-x").args([package, root]))
}

fn rpm(package: &Path, root: &Path) -> Result<(), String> {
    if is_there("bsdtar") {
        return run(Command::new("bsdtar").arg("-xf").arg(package).arg("-C").arg(root));
    }
    if !is_there("rpm2cpio") || !is_there("cpio") {
        return Err(
            "there is neither bsdtar (Debian's package libarchive-tools) nor rpm2cpio with cpio here; \
                    install one, or give the unpacked files with --kernel and --modules"
                .to_owned(),
        );
    }
    let failed = |error: std::io::Error| format!("rpm2cpio: {error}");
    let mut convert = Command::new("rpm2cpio");
    let piped = convert.arg(package).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut convert = piped.env("LC_ALL", "C").spawn().map_err(failed)?;
    let archive = convert.stdout.take().ok_or("rpm2cpio gives nothing")?;
    // What it says is read meanwhile, so that neither waits for the other.
    let converted = thread::spawn(move || convert.wait_with_output());
    let mut unpack = Command::new("cpio");
    let words = ["-i", "-d", "-m", "--quiet", "--no-absolute-filenames"];
    let unpacked = output(unpack.args(words).current_dir(root).stdin(archive));
    let converted =
        converted.join().map_err(|_| "rpm2cpio: its output could not be read")?.map_err(failed)?;
    if !converted.status.success() {
        let said = String::from_utf8_lossy(&converted.stderr);
        return Err(format!("rpm2cpio: {}: {}", converted.status, said.trim()));
    }
    unpacked
}

/// The only kernel below a directory, and its modules.
fn find(root: &Path, packages: Vec<String>) -> Result<Unpacked, Failure> {
    let inside = |part: &str| {
        let entries = std::fs::read_dir(root.join(part)).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    };
    let modules: Vec<PathBuf> = ["lib/modules", "usr/lib/modules"]
        .iter()
        .flat_map(|part| inside(part))
        .filter(|it| it.is_dir())
        .collect();
    let is_image = |path: &PathBuf| files::name(path).starts_with("vmlinuz") && is_own_file(path);
    let mut images: Vec<PathBuf> = inside("boot").into_iter().filter(is_image).collect();
    if images.is_empty() {
        images = modules.iter().map(|it| it.join("vmlinuz")).filter(is_image).collect();
    }
    let what = packages.join(", ");
    let [kernel] = &images[..] else {
        let why = if images.is_empty() {
            "there is no kernel image (vmlinuz) in it"
        } else {
            "it has several kernels"
        };
        return Err(Failure::input(format!(
            "{what}: {why}; give the package with the image and those with its modules together, or the \
             files with --kernel and --modules"
        )));
    };
    let image = files::read(kernel, "kernel image (vmlinuz)")?;
    let release = linux::release(&image);
    let fits = |it: &&PathBuf| release.as_ref().is_none_or(|release| files::name(it) == *release);
    Ok(Unpacked { kernel: kernel.clone(), modules: modules.iter().find(fits).cloned(), packages })
}

/// Whether a path is a file, and no link that may lead out of the package.
fn is_own_file(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.is_file())
}

/// Whether a program can be started at all.
fn is_there(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(program).is_file()))
}

fn run(command: &mut Command) -> Result<(), String> {
    output(command.stdin(Stdio::null()))
}

/// Runs a program whose output matters only where it fails.
fn output(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let ended = command.env("LC_ALL", "C").output().map_err(|error| format!("{program}: {error}"))?;
    if ended.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    Err(format!("{program}: {}: {}", ended.status, said.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workspace with these files unpacked in it.
    fn workspace(test: &str, unpacked: &[(&str, &[u8])]) -> Workspace {
        let parent = std::env::temp_dir().join(format!("virtuoso-package-{test}-{}", std::process::id()));
        let workspace = Workspace::new(&parent).map_err(|error| error.to_string()).expect("a workspace");
        for (name, bytes) in unpacked {
            let path = workspace.0.join("root").join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            std::fs::write(path, bytes).expect("a file");
        }
        workspace
    }

    /// A kernel image that names its release.
    fn image(release: &str) -> Vec<u8> {
        let mut image = vec![0; 0x260];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e] = 0x60;
        image.extend(format!("{release} (x) #1\0").as_bytes());
        image
    }

    #[test]
    fn the_kernel_of_a_package_is_found_with_its_modules() {
        let image = image("6.1.0-1");
        let layouts: [&[&str]; 3] = [
            &["boot/vmlinuz-6.1.0-1", "lib/modules/6.1.0-1/kernel/a.ko", "lib/modules/5.0/kernel/a.ko"],
            &["boot/vmlinuz-6.1.0-1", "usr/lib/modules/6.1.0-1/kernel/a.ko"],
            &["usr/lib/modules/6.1.0-1/vmlinuz", "usr/lib/modules/6.1.0-1/kernel/a.ko"],
        ];
        for (at, names) in layouts.iter().enumerate() {
            let all: Vec<(&str, &[u8])> = names.iter().map(|name| (*name, image.as_slice())).collect();
            let there = workspace(&format!("found-{at}"), &all);
            let found = find(&there.0.join("root"), vec!["p".to_owned()]).map_err(|error| error.to_string());
            let found = found.expect("a kernel");
            assert!(found.kernel.ends_with(names[0]), "{names:?}");
            assert!(found.modules.expect("modules").ends_with("6.1.0-1"), "{names:?}");
        }
        let two = workspace("two", &[("boot/vmlinuz-1", &image), ("boot/vmlinuz-2", &image)]);
        let several = find(&two.0.join("root"), vec!["p".to_owned()]).err().expect("refused").to_string();
        assert!(several.contains("several kernels"), "{several}");
        let path = two.0.clone();
        drop(two);
        assert!(!path.exists());
    }

    #[test]
    fn links_of_a_package_lead_nowhere() {
        let there = workspace("links", &[("lib/modules/6/kernel/a.ko", b"x")]);
        std::fs::create_dir(there.0.join("root/boot")).expect("a folder");
        std::os::unix::fs::symlink("/bin/sh", there.0.join("root/boot/vmlinuz-6")).expect("a link");
        let none = find(&there.0.join("root"), vec!["p".to_owned()]).err().expect("refused").to_string();
        assert!(none.contains("no kernel image"), "{none}");
    }

    #[test]
    fn who_cannot_download_is_told_what_to_fetch() {
        let there = workspace("fetch", &[]);
        let told = |text: &str| {
            let banner = Banner::parse(text.as_bytes()).expect("a banner");
            download(&banner, &there).err().expect("refused").to_string()
        };
        let fedora = told("Linux version 6.8.9-300.fc40.x86_64 (mockbuild@a) (gcc) #1 SMP");
        assert!(
            fedora.contains("Fedora") && fedora.contains("kernel-core-6.8.9-300.fc40.x86_64.rpm"),
            "{fedora}"
        );
        assert!(fedora.contains("--rpm"), "{fedora}");
        let arch = told("Linux version 6.9.1-arch1-1 (linux@archlinux) (gcc) #1 SMP");
        assert!(arch.contains("linux-6.9.1.arch1-1-x86_64.pkg.tar.zst, unpack it"), "{arch}");
        let own = told("Linux version 6.9.1 (me@home) (gcc) #1 SMP");
        assert!(own.contains("--kernel and --modules"), "{own}");
    }
}
