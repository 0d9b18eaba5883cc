//! What set-up asks apt and dpkg, and the one thing it adds to apt's sources: Debian's backports.
//!
//! The mirror is always the one this machine already uses (`apt-get indextargets` knows it whatever
//! the format of the sources); no host name is written here. Nothing runs as root unless a package
//! is missing.

use crate::shell;
use std::process::Command;

/// Whether this machine installs with apt.
pub fn present() -> bool {
    shell::exists("apt-get") && shell::exists("dpkg-deb")
}

/// Fails where there is no apt to get `what` with.
pub fn need(what: &str) -> Result<(), String> {
    if present() {
        return Ok(());
    }
    Err(format!(
        "{what}: missing, and this system has no apt to get it with; install it by hand (Debian and Ubuntu \
         are what set-up knows)"
    ))
}

/// Whether a package is installed.
pub fn installed(package: &str) -> bool {
    shell::output("dpkg-query", &["-W", "-f", "${db:Status-Status}", package])
        .is_ok_and(|status| status == "installed")
}

/// Refreshes apt's package lists, as root.
pub fn update() -> Result<(), String> {
    let mut command = as_root("apt-get")?;
    shell::show(command.args(["-q", "-q", "update"]))
}

/// Installs packages, as root, from `release` where given.
pub fn install(packages: &[&str], release: Option<&str>) -> Result<(), String> {
    let mut command = as_root("env")?;
    command.args([
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "-q",
        "-q",
        "-y",
        "--no-install-recommends",
        "install",
    ]);
    if let Some(release) = release {
        command.args(["-t", release]);
    }
    shell::show(command.args(packages)).map_err(|error| {
        format!("{error}\n  could not install {}; apt's own message is above", packages.join(" "))
    })
}

/// The versions of a package that apt knows, with the place each comes from, the best first.
pub fn versions(package: &str) -> Vec<(String, String)> {
    let text = shell::output("apt-cache", &["madison", package]).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let mut columns = line.split('|').map(str::trim);
            let (_, version, place) = (columns.next()?, columns.next()?, columns.next()?);
            Some((version.to_owned(), place.to_owned()))
        })
        .collect()
}

/// Names of known packages that begin with `prefix`.
pub fn names(prefix: &str) -> Vec<String> {
    let text = shell::output("apt-cache", &["pkgnames", prefix]).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// What a package depends on, as far as it begins with `prefix`.
pub fn dependencies(package: &str, prefix: &str) -> Vec<String> {
    let text = shell::output("apt-cache", &["--no-all-versions", "show", package]).unwrap_or_default();
    depends(&text, prefix)
}

/// The same from what `apt-cache show` printed.
pub fn depends(text: &str, prefix: &str) -> Vec<String> {
    let depends =
        text.lines().filter_map(|line| line.strip_prefix("Depends: ")).flat_map(|list| list.split(", "));
    let names =
        depends.filter_map(|item| item.split_whitespace().next()).filter(|name| name.starts_with(prefix));
    names.map(str::to_owned).collect()
}

/// The name of the running Debian release, such as `bookworm`; `None` on other systems.
pub fn debian_release() -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release").ok()?;
    let value = |key: &str| {
        text.lines().find_map(|line| line.strip_prefix(key)).map(|value| value.trim_matches('"').to_owned())
    };
    (value("ID=")? == "debian").then(|| value("VERSION_CODENAME="))?
}

/// Adds `RELEASE-backports` from the mirror that this machine uses for `RELEASE`.
pub fn add_backports(release: &str) -> Result<(), String> {
    let mirror = mirror(release)?;
    let mut entry = format!(
        "# Added by Virtuoso's `cargo xtask setup`, for a QEMU that it can use. Safe to delete.\n\
         Types: deb\nURIs: {mirror}\nSuites: {release}-backports\nComponents: main\n"
    );
    let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    if std::path::Path::new(keys).is_file() {
        entry += &format!("Signed-By: {keys}\n");
    }
    let target = format!("/etc/apt/sources.list.d/virtuoso-{release}-backports.sources");
    println!("setup: adding {release}-backports from {mirror} as {target}");
    let temporary = std::env::temp_dir().join(format!("virtuoso-backports-{}", std::process::id()));
    std::fs::write(&temporary, entry).map_err(|error| format!("{}: {error}", temporary.display()))?;
    let result = shell::show(as_root("install")?.args(["-m", "644"]).arg(&temporary).arg(&target));
    // The temporary file matters to nobody once it is copied.
    let _ = std::fs::remove_file(&temporary);
    result
}

/// The address this machine's sources give for `release`.
fn mirror(release: &str) -> Result<String, String> {
    let format = "$(RELEASE)|$(COMPONENT)|$(REPO_URI)";
    let text = shell::output("apt-get", &["indextargets", "--format", format, "Created-By: Packages"])?;
    let found = text.lines().find_map(|line| {
        let mut columns = line.split('|');
        (columns.next() == Some(release) && columns.next() == Some("main")).then(|| columns.next())?
    });
    found.map(str::to_owned).ok_or_else(|| {
        format!(
            "apt's sources have no `{release} main`, so there is no mirror to take QEMU from; add one to \
             /etc/apt/sources.list.d, or put a qemu-system-x86_64 of 9.2 or newer on the PATH"
        )
    })
}

/// A command that will run as root.
fn as_root(program: &str) -> Result<Command, String> {
    if shell::output("id", &["-u"])?.trim() == "0" {
        return Ok(Command::new(program));
    }
    if !shell::exists("sudo") {
        return Err(format!(
            "`{program}` has to run as root here, and there is no sudo: run `cargo xtask setup` as root"
        ));
    }
    let mut command = Command::new("sudo");
    command.arg(program);
    Ok(command)
}
