//! Which kernel a training boots: the files that the user names, or those out of packages that are
//! named or downloaded for a target.

use std::path::{Path, PathBuf};

use clap::Args;
use linux::Banner;

use crate::banner::{self, OF_A_DUMP, OF_A_GUEST};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::live::{Moment, Name};
use crate::pack_info::is_free;
use crate::train::package::{Kind, Unpacked, Workspace, download, unpack};
use crate::{files, output, target};

/// The options that say which kernel is trained.
#[derive(Args, Debug)]
#[group(id = "which", required = true, multiple = true)]
pub struct SourceArgs {
    /// The kernel image, as the boot loader takes it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["deb", "rpm"])]
    pub kernel: Option<PathBuf>,
    /// Make the pack for a target: a dump, qmp:SOCKET or libvirt:DOMAIN. Its kernel's package is
    /// named by the banner in its memory and downloaded with this machine's apt, without installing
    /// it; with --kernel, --deb or --rpm these are taken, if they are of that kernel
    #[arg(long = "for", value_name = "TARGET")]
    pub target: Option<PathBuf>,
    /// Take kernel and modules out of a Debian package; may be given several times
    #[arg(long, value_name = "FILE", conflicts_with = "rpm")]
    pub deb: Vec<PathBuf>,
    /// Take kernel and modules out of an RPM package; may be given several times
    #[arg(long, value_name = "FILE")]
    pub rpm: Vec<PathBuf>,
}

/// A kernel to be trained.
pub struct Source {
    /// Its image.
    pub kernel: PathBuf,
    /// Its modules out of a package.
    pub modules: Option<PathBuf>,
    /// The packages that it came from.
    pub packages: Vec<String>,
    /// What it has to call itself: a target's banners.
    pub wanted: Vec<Banner>,
    /// Where it is unpacked, if it is.
    _workspace: Option<Workspace>,
}

impl SourceArgs {
    /// Finds the kernel; packages are unpacked in a new directory in `place`. `by_release`: the
    /// pack will lie there, too, under its kernel's release, and is not downloaded where that is
    /// taken.
    ///
    /// # Errors
    /// There is none, or it cannot be told which.
    pub fn source(&self, place: &Path, by_release: bool, context: Context) -> Result<Source, Failure> {
        let wanted =
            self.target.as_deref().map(|path| wanted(path, context)).transpose()?.unwrap_or_default();
        if let Some(kernel) = &self.kernel {
            let (kernel, packages) = (kernel.clone(), Vec::new());
            return Ok(Source { kernel, modules: None, packages, wanted, _workspace: None });
        }
        let workspace = Workspace::new(place)?;
        let Unpacked { kernel, modules, packages } = match (&self.deb[..], &self.rpm[..], &self.target) {
            ([], [], Some(target)) => {
                let [banner] = &wanted[..] else {
                    let lines: Vec<String> = wanted.iter().map(|it| format!("\n{it}")).collect();
                    return Err(Failure::file(
                        target,
                        format!(
                            "its memory has the banners of several kernels; give the package of its own with \
                             --deb or --rpm:{}",
                            lines.concat()
                        ),
                    ));
                };
                if by_release {
                    is_free(&place.join(banner.release()))?;
                }
                let what = format!("downloading and unpacking the package of {}", banner.release());
                context.progress.during(what, || download(banner, &workspace))?
            }
            ([], rpm, _) => unpack(rpm, Kind::Rpm, &workspace)?,
            (deb, ..) => unpack(deb, Kind::Deb, &workspace)?,
        };
        if !context.quiet {
            output::note(&format!("{} from {}", files::name(&kernel), packages.join(", ")));
        }
        Ok(Source { kernel, modules, packages, wanted, _workspace: Some(workspace) })
    }
}

/// The banners in a target's memory, one at least.
fn wanted(path: &Path, context: Context) -> Result<Vec<Banner>, Failure> {
    let options = machine::TargetOptions {
        without_cpus: true,
        // What is missing has no banner.
        partial: Name::parse(path).is_none(),
        unpacking: target::unpacking(context),
        ..machine::TargetOptions::default()
    };
    let limit = if Name::parse(path).is_some() { OF_A_GUEST } else { OF_A_DUMP };
    // A live guest may stand still a moment longer than it is searched.
    let mut opened = target::open(path, &options, &Moment::any(10 * OF_A_GUEST), context)?;
    let found = opened.during(|opened| {
        Ok(context.progress.during("looking for the kernel's banner", || banner::search(opened, limit)))
    })?;
    if found.banners.is_empty() {
        let text = found.advice(&path.display().to_string());
        return Err(Failure::file(path, format!("{text}; name the kernel with --kernel, --deb or --rpm")));
    }
    if !context.quiet {
        found.banners.iter().for_each(|banner| output::note(&format!("{}: {banner}", path.display())));
    }
    Ok(found.banners)
}

impl Source {
    /// That what the first guest calls itself is what the target does.
    ///
    /// # Errors
    /// It is not: another build does not fit.
    pub fn check(&self, banner: Option<&Banner>) -> Result<(), Failure> {
        match banner {
            Some(banner) if !self.wanted.is_empty() && !self.wanted.contains(banner) => {
                let wanted: Vec<String> = self.wanted.iter().map(|it| format!("\n{it}")).collect();
                Err(Failure::new(
                    Exit::OtherKernel,
                    format!(
                        "this kernel calls itself {banner}, which the target does not run: its pack would \
                         not fit. The target's:{}",
                        wanted.concat()
                    ),
                ))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_build_than_the_targets_is_refused() {
        let banner = |build: &str| {
            let text = format!("Linux version 6.1.0-57-amd64 (d) (gcc) #1 SMP Debian {build} (2026-11-26)");
            Banner::parse(text.as_bytes()).expect("a banner")
        };
        let source = |wanted: &[Banner]| Source {
            kernel: "vmlinuz".into(),
            modules: None,
            packages: Vec::new(),
            wanted: wanted.to_vec(),
            _workspace: None,
        };
        let (ours, other) = (banner("6.1.192-3"), banner("6.1.192-2"));
        let refused = source(std::slice::from_ref(&ours)).check(Some(&other)).expect_err("another build");
        assert_eq!(refused.exit, Exit::OtherKernel);
        assert!(refused.to_string().contains("6.1.192-2") && refused.to_string().contains("6.1.192-3"));
        for (wanted, got) in [
            (vec![other.clone(), ours.clone()], Some(&ours)),
            (vec![], Some(&ours)),
            (vec![ours.clone()], None),
        ] {
            assert!(source(&wanted).check(got).is_ok(), "{wanted:?} {got:?}");
        }
    }
}
