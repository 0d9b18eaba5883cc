//! `virtuoso mount`: the guest's files as a directory.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use machine::Target;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::context::Context;
use crate::failure::Failure;
use crate::format::digits;
use crate::guest_tree::TreeArgs;
use crate::live::Name;
use crate::mount::{Mount, serve};
use crate::{files, output};

/// Show the machine's own file tree as a read-only directory of this one, for every tool
///
/// It is there until Ctrl-C, or until it is unmounted. What the guest would have to read from a
/// device is an input/output error, and DIR/.virtuoso/errors.jsonl says which file and why.
/// DIR/.virtuoso/target.json says what is mounted.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso mount guest.elf /mnt
  tar -C /mnt -cf tmp.tar tmp
  cp /mnt/proc/1/exe init")]
pub struct MountArgs {
    /// Where links lead: `inside` shows them so that they lead to the guest's files, `raw` as the
    /// guest has them, which may lead to files of this machine
    #[arg(long, value_enum, default_value_t = Links::Inside)]
    links: Links,
    /// Hold a live guest paused as long as it is mounted, at most --max-pause
    #[arg(long)]
    freeze: bool,
    #[command(flatten)]
    tree: TreeArgs,
    /// An empty directory
    directory: PathBuf,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Links {
    Inside,
    Raw,
}

impl MountArgs {
    /// Runs the verb.
    pub fn run(&self, context: Context) -> Result<(), Failure> {
        refuse_running(&self.tree, self.freeze)?;
        self.tree.ask_with(context, "readdir", |tree, target, programs| {
            let mount = Mount {
                directory: &self.directory,
                remove: false,
                name: &files::name(&self.tree.target),
                about: about(&self.tree, target, programs, self.links == Links::Raw)?,
                raw_links: self.links == Links::Raw,
            };
            serve(tree, mount, |ends, _| {
                if !context.quiet {
                    let directory = self.directory.display();
                    output::note(&format!("{directory}: mounted; Ctrl-C unmounts it"));
                }
                // However it ends, it is unmounted after this.
                let _ = ends.recv();
                Ok(())
            })
        })
    }
}

/// Refuses a live guest that is not to be paused.
///
/// # Errors
/// It is one.
pub fn refuse_running(tree: &TreeArgs, freeze: bool) -> Result<(), Failure> {
    if freeze || Name::parse(&tree.target).is_none() {
        return Ok(());
    }
    let text = "a live guest's files change while they are looked at; hold it paused meanwhile with --freeze \
                (for --max-pause at most), or take a dump";
    Err(Failure::file(&tree.target, text))
}

/// What `target.json` says.
///
/// # Errors
/// A program cannot be read any more.
pub fn about(
    tree: &TreeArgs,
    target: &Target,
    programs: [&Path; 4],
    raw_links: bool,
) -> Result<Vec<u8>, Failure> {
    let hashed = |path: &Path| {
        let bytes = files::read(path, "program")?;
        Ok((files::name(path), json!(digits(&Sha256::digest(bytes)))))
    };
    let hashed = programs.into_iter().map(hashed).collect::<Result<serde_json::Map<_, _>, Failure>>()?;
    let about = json!({
        "target": tree.target.display().to_string(),
        "format": target.format,
        "memory": target.mem.size(),
        "pack": programs[0].parent().map(|pack| pack.display().to_string()),
        "programs": hashed,
        "links": if raw_links { "raw" } else { "inside" },
        "self": tree.own,
        "version": env!("CARGO_PKG_VERSION"),
    });
    Ok(format!("{about:#}\n").into_bytes())
}
