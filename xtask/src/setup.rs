//! `cargo xtask setup`: everything the demo and the tests need, on a fresh Debian or Ubuntu machine
//! with Rust.
//!
//! Installs what is missing (only then as root), fetches the guest kernel's package into the
//! ignored cache without installing it, and builds the guests. When all is there it only looks, and
//! is done in about a second. It never upgrades what is installed and good enough.

use crate::outcome::Outcome;
use crate::{apt, kernels, shell};
use std::path::Path;
use testkit::initramfs::{self, Kind};
use testkit::kernel::{Kernel, OTHERS};
use testkit::{layout, rootkit};

/// The oldest QEMU whose plugin interface shows the values of memory accesses.
const QEMU: (u32, u32) = (9, 2);

/// Packages by the program that shows they are there.
const TOOLS: [(&str, &str); 5] = [
    ("gcc", "gcc"),
    ("musl-gcc", "musl-tools"),
    ("cpio", "cpio"),
    ("busybox", "busybox-static"),
    ("xz", "xz-utils"),
];

/// Runs the verb.
pub fn run() -> Outcome {
    tools()?;
    qemu()?;
    let kernel = kernels::default()?;
    headers(&kernel)?;
    optional("makedumpfile", &["makedumpfile"], "the dumps that it writes")?;
    optional(
        "x86_64-w64-mingw32-gcc",
        &["gcc-mingw-w64-x86-64-win32"],
        "that 64-bit Windows trainers compile",
    )?;
    optional("i686-w64-mingw32-gcc", &["gcc-mingw-w64-i686-win32"], "that 32-bit Windows trainers compile")?;
    optional("nasm", &["nasm", "fasm", "tcc"], "marks of assemblers and a third compiler")?;
    for (program, package) in [("ps", "procps"), ("pstree", "psmisc"), ("lsof", "lsof"), ("lsmod", "kmod")] {
        optional(program, &[package], "that it runs over a guest's files")?;
    }
    let mut there = vec![kernel];
    for name in OTHERS {
        there.extend(kernels::other(name)?);
    }
    kernels::mach();
    for (number, kernel) in there.iter().enumerate() {
        let (image, train) = (kernel.unpacked()?, initramfs::build(Kind::Training, kernel)?);
        initramfs::build(Kind::Target, kernel)?;
        // The default kernel's by names that do not change, for people.
        if number == 0 {
            link("vmlinux", &image)?;
            link("train.cpio", &train)?;
        }
    }
    let releases: Vec<&str> = there.iter().map(|kernel| kernel.release.as_str()).collect();
    println!(
        "setup: ready (QEMU {}, guest kernels {})",
        qemu_version().unwrap_or_default(),
        releases.join(", ")
    );
    Ok(())
}

/// Makes `name` in the build directory lead to a file there.
fn link(name: &str, file: &Path) -> Outcome {
    let link = layout::build().join(name);
    // Made anew below; if it cannot be removed, that says so.
    let _ = std::fs::remove_file(&link);
    Ok(std::os::unix::fs::symlink(file, &link)?)
}

/// Installs the missing build tools.
fn tools() -> Outcome {
    let there = |&(program, package): &(&str, &str)| match package {
        // A dynamic busybox has the same name.
        "busybox-static" => apt::installed(package),
        _ => shell::exists(program),
    };
    let missing: Vec<&str> = TOOLS.iter().filter(|tool| !there(tool)).map(|tool| tool.1).collect();
    if missing.is_empty() {
        return Ok(());
    }
    apt::need(&missing.join(", "))?;
    println!("setup: installing {}", missing.join(", "));
    apt::update()?;
    Ok(apt::install(&missing, None)?)
}

/// Installs the guest kernel's headers, which the modules that hide things in test guests are built
/// against.
fn headers(kernel: &Kernel) -> Outcome {
    if rootkit::headers(kernel).is_dir() {
        return Ok(());
    }
    let package = format!("linux-headers-{}", kernel.release);
    apt::need(&package)?;
    if apt::versions(&package).is_empty() {
        apt::update()?;
    }
    if apt::versions(&package).is_empty() {
        println!(
            "setup: the archive has no {package}: the test of hidden processes and modules will not run"
        );
        return Ok(());
    }
    println!("setup: installing {package} (for the test modules that hide things in test guests)");
    Ok(apt::install(&[&package, "make"], None)?)
}

/// Installs packages that a test needs, told by a program; where there are none that test does
/// without them and says so.
fn optional(program: &str, packages: &[&str], tested: &str) -> Outcome {
    if shell::exists(program) {
        return Ok(());
    }
    let list = packages.join(", ");
    if !apt::present() || packages.iter().any(|package| apt::versions(package).is_empty()) {
        println!("setup: no {list} to be had: not tested is {tested}");
        return Ok(());
    }
    println!("setup: installing {list} (to test {tested})");
    Ok(apt::install(packages, None)?)
}

/// Makes sure that there is a QEMU that is new enough.
fn qemu() -> Outcome {
    const PACKAGE: &str = "qemu-system-x86";
    let wanted = format!("{}.{}", QEMU.0, QEMU.1);
    let found = qemu_version();
    if found.as_deref().and_then(version).is_some_and(|found| found >= QEMU) {
        return Ok(());
    }
    match found {
        Some(old) => println!("setup: QEMU {old} is too old, {wanted} or newer is needed"),
        None => println!("setup: QEMU {wanted} or newer is needed and not there"),
    }
    apt::need(&format!("QEMU {wanted} or newer"))?;
    apt::update()?;
    let new_enough = || {
        let versions = apt::versions(PACKAGE).into_iter();
        versions
            .filter(|(text, _)| version(text).is_some_and(|version| version >= QEMU))
            .map(|(_, place)| place)
            .next()
    };
    if new_enough().is_none()
        && let Some(release) = apt::debian_release()
    {
        apt::add_backports(&release)?;
        apt::update()?;
    }
    let Some(place) = new_enough() else {
        let here =
            apt::versions(PACKAGE).first().map_or("none at all".to_owned(), |(version, _)| version.clone());
        return Err(format!(
            "this system's archive has no {PACKAGE} of {wanted} or newer (the best is {here}); use Debian 12 \
             or newer or Ubuntu 25.04 or newer, or put a qemu-system-x86_64 of your own first on the PATH"
        )
        .into());
    };
    // "http://mirror/debian bookworm-backports/main amd64 Packages"
    let release =
        place.split_whitespace().nth(1).and_then(|suite| suite.split('/').next()).map(str::to_owned);
    println!("setup: installing {PACKAGE} from {}", release.as_deref().unwrap_or("the archive"));
    apt::install(&[PACKAGE], release.as_deref())?;
    match qemu_version() {
        Some(now) if version(&now).is_some_and(|now| now >= QEMU) => Ok(()),
        Some(now) => Err(format!(
            "{PACKAGE} is installed, but the qemu-system-x86_64 first on the PATH is still {now}: remove \
             that one"
        )
        .into()),
        None => Err(format!("{PACKAGE} is installed, but qemu-system-x86_64 does not start").into()),
    }
}

/// The installed QEMU's version, such as `10.0.2`.
fn qemu_version() -> Option<String> {
    let text = shell::output("qemu-system-x86_64", &["--version"]).ok()?;
    text.split_whitespace().skip_while(|word| *word != "version").nth(1).map(str::to_owned)
}

/// Major and minor number of a version, with or without a Debian epoch.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.rsplit(':').next()?.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_of_qemu_and_of_debian_packages() {
        assert_eq!(version("10.0.2"), Some((10, 0)));
        assert_eq!(version("1:7.2+dfsg-7+deb12u18"), Some((7, 2)));
        assert_eq!(version("1:10.0.2+ds-2~bpo12+1"), Some((10, 0)));
        assert_eq!(version("unknown"), None);
        assert!(version("9.2.0") >= Some(super::QEMU));
    }
}
