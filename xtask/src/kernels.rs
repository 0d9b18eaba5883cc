//! The guest kernels and the i386 programs' library: which packages they are, fetched into the
//! ignored cache.
//!
//! Nothing is installed. What the archive does not have is left out with a line that says so, but
//! for the default kernel.

use std::path::Path;
use std::process::Command;

use testkit::kernel::{DEFAULT, I386, Kernel, marker};
use testkit::layout;
use testkit::userland::Userland;

use crate::apt;
use crate::foreign_packages::{Foreign, unpack_all};
use crate::outcome::Outcome;

/// The guest kernel in the cache, fetched if it is not there.
pub fn default() -> Result<Kernel, Box<dyn std::error::Error>> {
    if let Ok(kernel) = Kernel::find(DEFAULT) {
        return Ok(kernel);
    }
    apt::need("the guest kernel")?;
    let mut package = kernel_package();
    if package.is_none() {
        println!("setup: apt knows no kernel package, refreshing its lists");
        apt::update()?;
        package = kernel_package();
    }
    let package = package.ok_or(
        "apt knows neither linux-image-amd64 nor linux-image-generic: the guests need a kernel package, \
         check apt's sources",
    )?;
    // Ubuntu keeps the modules in a package of their own.
    let mut packages = vec![package.clone()];
    packages.extend(apt::dependencies(&package, "linux-modules-"));
    if let Err(error) = fetch_here(DEFAULT, &packages) {
        println!("setup: {error}\nsetup: apt's lists may be old, refreshing them");
        apt::update()?;
        fetch_here(DEFAULT, &packages)?;
    }
    Ok(Kernel::find(DEFAULT)?)
}

/// One of the other kernels; `None` where the archive has no such build, and then what tests
/// several kernels has one fewer.
pub fn other(name: &str) -> Result<Option<Kernel>, Box<dyn std::error::Error>> {
    if let Ok(kernel) = Kernel::find(name) {
        return Ok(Some(kernel));
    }
    let meta = match name {
        I386 => return i386(),
        "cloud" => "linux-image-cloud-amd64".to_owned(),
        "rt" => "linux-image-rt-amd64".to_owned(),
        _ => {
            let mut known = apt::versions("linux-image-amd64").into_iter();
            let Some((version, _)) = known.find(|(_, place)| place.contains("-backports/")) else {
                println!("setup: apt's sources have no kernel in backports: that kernel will not be tested");
                return Ok(None);
            };
            format!("linux-image-amd64={version}")
        }
    };
    let Some(package) = apt::dependencies(&meta, "linux-image-").pop() else {
        println!("setup: apt knows no {meta}: that kernel will not be tested");
        return Ok(None);
    };
    if let Err(error) = fetch_here(name, &[package]) {
        println!("setup: {error}\nsetup: that kernel will not be tested");
        return Ok(None);
    }
    Ok(Some(Kernel::find(name)?))
}

/// The package with the kernel to use: Debian's current 6.1 where the archive has one, else the
/// current one.
fn kernel_package() -> Option<String> {
    const IMAGE: &str = "linux-image-";
    let current = ["linux-image-amd64", "linux-image-generic"]
        .iter()
        .find_map(|meta| apt::dependencies(meta, IMAGE).pop());
    let revision = |name: &str| {
        let rest = name.strip_prefix("linux-image-6.1.0-")?.strip_suffix("-amd64")?;
        rest.parse::<u32>().ok()
    };
    if current.as_deref().and_then(revision).is_some() {
        return current;
    }
    let known = apt::names("linux-image-6.1.0-").into_iter().filter(|name| !apt::versions(name).is_empty());
    known.filter_map(|name| Some((revision(&name)?, name))).max().map(|(_, name)| name).or(current)
}

/// The i386 kernel and, for its programs, busybox, the C library and the compiler's support.
fn i386() -> Result<Option<Kernel>, Box<dyn std::error::Error>> {
    let absent = |why: &str| {
        println!("setup: {why}: 32-bit guests will not be tested");
        Ok(None)
    };
    if !apt::present() {
        return absent("no apt to get i386 packages with");
    }
    println!("setup: fetching package lists for i386, apart from this machine's own");
    match with_i386(i386_packages) {
        Ok(()) => Ok(Some(Kernel::find(I386)?)),
        Err(error) => absent(&error.to_string()),
    }
}

/// GNU Mach, which is packaged for i386; without it the test of a system that is not Linux does not
/// run.
pub fn mach() {
    if testkit::mach::is_there() || !apt::present() {
        return;
    }
    let result = with_i386(|apt| {
        let known = apt.names("gnumach-image-1.");
        // Not the one for another hypervisor, nor debugging symbols.
        let plain =
            |name: &String| (name.ends_with("-486") || name.ends_with("-486-up")) && !name.contains("xen");
        let package = known.into_iter().filter(plain).max();
        let package = package.ok_or("the archive has no GNU Mach")?;
        println!("setup: fetching {package} into {}", testkit::mach::package().display());
        whole(&testkit::mach::package(), |part| apt.unpack(std::slice::from_ref(&package), part))
    });
    if let Err(error) = result {
        println!("setup: {error}: that system will not be tested");
    }
}

/// Fetches i386 packages by an apt state that is gone afterwards.
fn with_i386(fetch: impl FnOnce(&Foreign) -> Outcome) -> Outcome {
    let state = layout::part_name(&layout::cache().join("apt-i386"));
    let result = Foreign::new("i386", &state).and_then(|apt| fetch(&apt));
    // Only lists and downloads that are unpacked by now.
    let _ = std::fs::remove_dir_all(&state);
    result
}

fn i386_packages(apt: &Foreign) -> Outcome {
    let kernel = apt
        .dependency("linux-image-686-pae", "linux-image-")
        .ok_or("the archive has no linux-image-686-pae")?;
    let compiler = apt.dependency("gcc", "gcc-").ok_or("the archive has no gcc for i386")?;
    let libraries = ["musl-dev".to_owned(), "busybox-static".to_owned(), format!("lib{compiler}-dev")];
    println!("setup: fetching {} into {}", libraries.join(", "), Userland::packages().display());
    whole(&Userland::packages(), |part| apt.unpack(&libraries, part))?;
    fetch(I386, &kernel, |part| apt.unpack(std::slice::from_ref(&kernel), part))
}

/// Downloads the packages of the kernel `name` with this machine's own apt.
fn fetch_here(name: &str, packages: &[String]) -> Outcome {
    let package = packages.first().ok_or("no package to fetch")?;
    fetch(name, package, |part| {
        for package in packages {
            let output =
                Command::new("apt-get").args(["-q", "-q", "download", package]).current_dir(part).output()?;
            if !output.status.success() {
                let why = String::from_utf8_lossy(&output.stderr);
                return Err(format!("could not fetch {package}: {}", why.trim()).into());
            }
        }
        unpack_all(part)
    })
}

/// Has `unpack` unpack the package of the kernel `name` into the cache.
fn fetch(name: &str, package: &str, unpack: impl FnOnce(&Path) -> Outcome) -> Outcome {
    println!("setup: fetching {package} into {}", layout::kernels().display());
    whole(&layout::kernels().join(package), unpack)?;
    Ok(layout::write(&marker(name), package.as_bytes())?)
}

/// Fills a new directory in one step for whoever looks there.
fn whole(directory: &Path, fill: impl FnOnce(&Path) -> Outcome) -> Outcome {
    let part = layout::part_name(directory);
    std::fs::create_dir_all(&part)?;
    let result = fill(&part).and_then(|()| {
        // An unfinished one from elsewhere; if it stays, the renaming says so.
        let _ = std::fs::remove_dir_all(directory);
        Ok(std::fs::rename(&part, directory)?)
    });
    if result.is_err() {
        // Nothing half-written stays; the error itself is what matters.
        let _ = std::fs::remove_dir_all(&part);
    }
    result
}
