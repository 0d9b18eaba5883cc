//! Which package a kernel came in, by what it calls itself.

use crate::banner::Banner;

/// The packages that a kernel's image and modules lie in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Package {
    /// Whose they are.
    pub distribution: &'static str,
    /// Names of the packages with the image and modules, which are needed.
    pub names: Vec<String>,
    /// Their version, where the banner says: another version is another build.
    pub version: Option<String>,
    /// The distribution's word for the processor, where the banner says.
    pub architecture: Option<&'static str>,
    /// How the files are called, as far as is known.
    pub files: Vec<String>,
}

impl Package {
    /// The packages of a kernel; `None` if nothing in its banner says whose it is.
    #[must_use]
    pub fn of(banner: &Banner) -> Option<Self> {
        debian(banner).or_else(|| ubuntu(banner)).or_else(|| rpm(banner)).or_else(|| arch(banner))
    }
}

/// Debian's kernels end their build with the package's version.
fn debian(banner: &Banner) -> Option<Package> {
    let version = banner.build().split(" Debian ").nth(1)?.split(' ').next()?;
    let good = |c: char| c.is_ascii_alphanumeric() || ".+~-:".contains(c);
    let version =
        Some(version).filter(|it| it.starts_with(|c: char| c.is_ascii_digit()) && it.chars().all(good))?;
    let release = banner.release();
    let architecture = match release {
        it if it.ends_with("-amd64") => Some("amd64"),
        it if it.contains("-686") => Some("i386"),
        it if it.ends_with("-arm64") => Some("arm64"),
        _ => None,
    };
    let name = format!("linux-image-{release}");
    let file = format!("{name}_{version}_{}.deb", architecture.unwrap_or("ARCHITECTURE"));
    Some(Package {
        distribution: "Debian",
        names: vec![name],
        version: Some(version.to_owned()),
        architecture,
        files: vec![file],
    })
}

/// Ubuntu's name the upload: `#31-Ubuntu` of 6.8.0-31-generic is version 6.8.0-31.31.
fn ubuntu(banner: &Banner) -> Option<Package> {
    let upload = banner.build().strip_prefix('#')?.split(' ').next()?.strip_suffix("-Ubuntu")?;
    let good = |c: char| c.is_ascii_alphanumeric() || ".+~".contains(c);
    let release = banner.release();
    let mut parts = release.splitn(3, '-');
    let (base, abi) = (parts.next()?, parts.next()?);
    let version = upload.chars().all(good).then(|| format!("{base}-{abi}.{upload}"));
    let names = [format!("linux-image-{release}"), format!("linux-modules-{release}")];
    let file = |name: &String| format!("{name}_{}_amd64.deb", version.as_deref().unwrap_or("VERSION"));
    Some(Package {
        distribution: "Ubuntu",
        files: names.iter().map(file).collect(),
        names: names.into(),
        version,
        architecture: Some("amd64"),
    })
}

/// Releases of Fedora and Red Hat's relatives name the packages' version and the processor, and
/// SUSE's the version and the flavour.
fn rpm(banner: &Banner) -> Option<Package> {
    let release = banner.release();
    let (distribution, names) = if release.contains(".fc") {
        ("Fedora", vec!["kernel-core", "kernel-modules-core", "kernel-modules"])
    } else if release.contains(".el7") {
        ("Red Hat Enterprise Linux 7 or a relative", vec!["kernel"])
    } else if release.contains(".el8") {
        ("Red Hat Enterprise Linux 8 or a relative", vec!["kernel-core", "kernel-modules"])
    } else if release.contains(".el") {
        let names = vec!["kernel-core", "kernel-modules-core", "kernel-modules"];
        ("Red Hat Enterprise Linux or a relative", names)
    } else if let (Some(version), true) = (release.strip_suffix("-default"), banner.text().contains("geeko@"))
    {
        return Some(Package {
            distribution: "SUSE",
            names: vec!["kernel-default".to_owned()],
            version: Some(version.to_owned()),
            architecture: Some("x86_64"),
            files: vec![format!("kernel-default-{version}.N.x86_64.rpm")],
        });
    } else {
        return None;
    };
    let (version, architecture) = match release.strip_suffix(".x86_64") {
        Some(version) => (version, Some("x86_64")),
        None => (release, None),
    };
    let files = names.iter().map(|name| format!("{name}-{release}.rpm")).collect();
    let names = names.into_iter().map(str::to_owned).collect();
    Some(Package { distribution, names, version: Some(version.to_owned()), architecture, files })
}

/// Arch's: `6.9.1-arch1-1` is version 6.9.1.arch1-1 of the package `linux`.
fn arch(banner: &Banner) -> Option<Package> {
    let (base, rest) = banner.release().split_once("-arch")?;
    let version = format!("{base}.arch{rest}");
    Some(Package {
        distribution: "Arch",
        names: vec!["linux".to_owned()],
        files: vec![format!("linux-{version}-x86_64.pkg.tar.zst")],
        version: Some(version),
        architecture: Some("x86_64"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(text: &str) -> Option<Package> {
        Package::of(&Banner::parse(text.as_bytes()).expect("a banner"))
    }

    #[test]
    fn debians_kernels_say_which_package_they_came_in() {
        let found = package(
            "Linux version 6.1.0-57-amd64 (debian-kernel@lists.debian.org) (gcc-12 (Debian 12.2.0-14)) \
             #1 SMP PREEMPT_DYNAMIC Debian 6.1.192-3 (2026-11-26)",
        )
        .expect("Debian's");
        assert_eq!((found.distribution, found.architecture), ("Debian", Some("amd64")));
        assert_eq!(found.names, ["linux-image-6.1.0-57-amd64"]);
        assert_eq!(found.version.as_deref(), Some("6.1.192-3"));
        assert_eq!(found.files, ["linux-image-6.1.0-57-amd64_6.1.192-3_amd64.deb"]);
        let found = package("Linux version 6.1.0-50-686-pae (d) (gcc) #1 SMP Debian 6.1.176-1 (2026-01-02)");
        assert_eq!(found.expect("Debian's").architecture, Some("i386"));
        let found =
            package("Linux version 6.12.95+deb12-amd64 (d) (gcc) #1 SMP Debian 6.12.95-1~bpo12+1 (x)");
        assert_eq!(
            found.expect("Debian's").files,
            ["linux-image-6.12.95+deb12-amd64_6.12.95-1~bpo12+1_amd64.deb"]
        );
        // What is no version cannot become an option or a path.
        assert_eq!(package("Linux version 6.1.0-1-amd64 (d) (gcc) #1 SMP Debian --help (x)"), None);
        assert_eq!(package("Linux version 6.1.0-1-amd64 (d) (gcc) #1 SMP Debian 1/../x (x)"), None);
    }

    #[test]
    fn others_name_their_files() {
        let files = |text| package(text).map(|found| (found.distribution, found.files));
        let (whose, ubuntu) = files(
            "Linux version 6.8.0-31-generic (buildd@lcy02) (x86_64-linux-gnu-gcc-13) #31~22.04.1-Ubuntu SMP",
        )
        .expect("Ubuntu's");
        assert_eq!(whose, "Ubuntu");
        assert_eq!(ubuntu[1], "linux-modules-6.8.0-31-generic_6.8.0-31.31~22.04.1_amd64.deb");
        let (_, fedora) =
            files("Linux version 6.8.9-300.fc40.x86_64 (mockbuild@a) (gcc) #1 SMP").expect("Fedora's");
        assert_eq!(fedora[0], "kernel-core-6.8.9-300.fc40.x86_64.rpm");
        let (_, suse) =
            files("Linux version 6.4.0-150600.21-default (geeko@buildhost) (gcc) #1 SMP").expect("SUSE's");
        assert_eq!(suse, ["kernel-default-6.4.0-150600.21.N.x86_64.rpm"]);
        let (_, arch) = files("Linux version 6.9.1-arch1-1 (linux@archlinux) (gcc) #1 SMP").expect("Arch's");
        assert_eq!(arch, ["linux-6.9.1.arch1-1-x86_64.pkg.tar.zst"]);
        assert_eq!(files("Linux version 6.9.1 (me@home) (gcc) #1 SMP"), None);
    }
}
