//! `virtuoso cp`: files of the guest, with a manifest of what became of each.
//!
//! Everything is written below one directory under names that are checked to lead nowhere else, and
//! links are made as the guest has them but never followed, so that nothing outside is touched
//! whatever the guest's names and links are.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use clap::Args;
use filetree::{Attributes, Error, Kind, MOST_READ, Tree, is_name, join};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::manifest::Manifest;
use super::{Failures, guest_path};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::format::{digits, parse_number};
use crate::guest_tree::{TreeArgs, failure};

/// The deepest directory that `-r` goes to.
const MOST_DEPTH: usize = 128;

/// The most bytes of a file that says that it has none, as those of procfs do: some of them, such
/// as a process's page map, go on for as long as somebody reads.
const MOST_UNTOLD: u64 = 32 << 20;

/// Zeros of this many bytes, at such a place of a file, become a hole.
const HOLE: usize = 4096;

/// Copy files of the guest, with their times and permissions, and a manifest of what became of each
///
/// The manifest is DEST.manifest.jsonl: a line for each file, with its SHA-256, or with the reason
/// why it is not there. Links are copied as links, devices and sockets are only listed.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso cp guest.elf /proc/1/exe init
  virtuoso cp -r guest.elf /tmp evidence
  virtuoso cp -r --max-file 0x100000 guest.elf /proc/1 proc1")]
pub struct CpArgs {
    /// Copy directories, with all that is in them
    #[arg(short)]
    recursive: bool,
    /// Replace files that are there already
    #[arg(long)]
    force: bool,
    /// The most bytes of one file; what is larger is left out, and the manifest says so. Of a file
    /// that gives no size 32 MiB
    #[arg(long, value_name = "N", value_parser = parse_number, default_value_t = 1 << 30)]
    max_file: u64,
    #[command(flatten)]
    tree: TreeArgs,
    /// Path in the guest
    path: OsString,
    /// Where it is to be; a directory that is there gets it under its own name
    dest: PathBuf,
}

/// A copy that is going on.
struct Copy<'c, 't, 'p, 's> {
    arguments: &'c CpArgs,
    tree: &'t Tree<'p, 's>,
    manifest: Manifest,
    failures: Failures,
}

/// Why a file is not there.
enum Missing {
    /// The guest does not give it.
    Guest(Error),
    /// It is of a kind that is only listed.
    Left(String),
    /// It goes past a bound of ours.
    Cut(String),
    /// This machine cannot hold it.
    Host(Failure),
}

impl CpArgs {
    /// Runs the verb.
    pub fn run(&self, context: Context) -> Result<(), Failure> {
        let path = guest_path(&self.path);
        let dest = self.destination(&path)?;
        self.tree.ask(context, |tree, _| {
            // A link that is named is followed, as `cp` does: what is wanted is what it leads to.
            let about = tree.attributes(&path, true).map_err(|error| failure(&path, &error))?;
            if about.kind == Kind::Directory && !self.recursive {
                let text = format!("{} is a directory; give -r to copy it", crate::guest_tree::shown(&path));
                return Err(Failure::input(text));
            }
            let mut name = dest.clone().into_os_string();
            name.push(".manifest.jsonl");
            let manifest = Manifest::new(name.into(), self.force)?;
            let mut copy = Copy { arguments: self, tree, manifest, failures: Failures::default() };
            copy.everything(&path, &dest, about, context)?;
            copy.manifest.finish()?;
            copy.failures.end()
        })
    }

    /// Where the copy is to be.
    fn destination(&self, path: &[u8]) -> Result<PathBuf, Failure> {
        if !self.dest.is_dir() {
            return Ok(self.dest.clone());
        }
        let name = path.rsplit(|&byte| byte == b'/').find(|name| !name.is_empty()).unwrap_or(b"root");
        if !is_name(name) {
            return Err(Failure::input("the path in the guest ends in no name; name the copy itself"));
        }
        Ok(self.dest.join(OsStr::from_bytes(name)))
    }
}

impl Copy<'_, '_, '_, '_> {
    /// Copies a path and what is below it. Directories get their times and permissions in the end.
    fn everything(
        &mut self,
        path: &[u8],
        dest: &Path,
        about: Attributes,
        context: Context,
    ) -> Result<(), Failure> {
        let mut waiting = vec![(path.to_vec(), dest.to_owned(), Some(about), 0)];
        let mut directories = Vec::new();
        while let Some((path, dest, about, depth)) = waiting.pop() {
            let known = about.map_or_else(|| self.tree.attributes(&path, false), Ok);
            let copied = known.map_err(Missing::Guest).and_then(|about| {
                context.progress.during("copying", || self.one(&path, &dest, about)).map(|more| (about, more))
            });
            let (about, more) = match copied {
                Ok(copied) => copied,
                Err(missing) => {
                    self.missing(&path, missing)?;
                    continue;
                }
            };
            self.manifest.copied(&path, &about, more)?;
            if about.kind != Kind::Directory {
                continue;
            }
            directories.push((dest.clone(), about));
            match self.tree.entries(&path) {
                Ok(entries) if depth >= MOST_DEPTH && !entries.is_empty() => {
                    self.missing(
                        &path,
                        Missing::Cut(format!(
                            "what is in it lies deeper than {MOST_DEPTH} directories; copy it by itself"
                        )),
                    )?;
                }
                Ok(entries) => waiting.extend(entries.into_iter().rev().map(|entry| {
                    (join(&path, &entry.name), dest.join(OsStr::from_bytes(&entry.name)), None, depth + 1)
                })),
                Err(error) => self.missing(&path, Missing::Guest(error))?,
            }
        }
        for (dest, about) in directories.iter().rev() {
            if let Ok(directory) = File::open(dest) {
                finish(&directory, about);
            }
        }
        Ok(())
    }

    /// Copies one file, link or directory without what is in it. Returns what the manifest says.
    fn one(&self, path: &[u8], dest: &Path, about: Attributes) -> Result<serde_json::Value, Missing> {
        let host = |error: io::Error| {
            let next = match error.kind() {
                io::ErrorKind::AlreadyExists => "give --force to replace it, or another destination",
                _ => "check the disk and the permissions",
            };
            Missing::Host(Failure::file(dest, format!("cannot write it: {error}; {next}")))
        };
        match about.kind {
            Kind::Directory => {
                fs::create_dir(dest)
                    .or_else(|error| {
                        let there = fs::symlink_metadata(dest).is_ok_and(|meta| meta.is_dir());
                        if there && self.arguments.force { Ok(()) } else { Err(error) }
                    })
                    .map_err(host)?;
                Ok(json!({}))
            }
            Kind::Link => {
                let to = self.tree.link(path).map_err(Missing::Guest)?;
                self.make_room(dest).map_err(host)?;
                symlink(OsStr::from_bytes(&to), dest).map_err(host)?;
                Ok(json!({ "link": engine::Text(to) }))
            }
            Kind::File => {
                let most = self.arguments.max_file;
                if about.size > most {
                    let why = format!("its {} bytes are more than --max-file {most}", about.size);
                    return Err(Missing::Cut(why));
                }
                // What does not answer leaves no file.
                let first = self.tree.read(path, 0, MOST_READ).map_err(Missing::Guest)?;
                self.make_room(dest).map_err(host)?;
                let mut file = OpenOptions::new().write(true).create_new(true).open(dest).map_err(host)?;
                let most = if about.size == 0 { most.min(MOST_UNTOLD) } else { most };
                let written = self.content((path, most), first, &mut file, &host);
                if written.is_err() {
                    drop(fs::remove_file(dest));
                }
                let (sha256, bytes) = written?;
                finish(&file, &about);
                Ok(json!({ "sha256": sha256, "bytes": bytes }))
            }
            kind => Err(Missing::Left(format!("a {} is not copied", kind.word()))),
        }
    }

    /// With `--force`, takes away what is there; never a directory.
    fn make_room(&self, dest: &Path) -> io::Result<()> {
        match fs::symlink_metadata(dest) {
            Ok(meta) if self.arguments.force && !meta.is_dir() => fs::remove_file(dest),
            _ => Ok(()),
        }
    }

    /// Writes a file's bytes from the first of them on. Returns their SHA-256 and number.
    fn content(
        &self,
        (path, most): (&[u8], u64),
        first: filetree::Content,
        file: &mut File,
        host: &dyn Fn(io::Error) -> Missing,
    ) -> Result<(String, u64), Missing> {
        let (mut hash, mut at, mut content) = (Sha256::new(), 0u64, first);
        loop {
            hash.update(&content.bytes);
            write_sparse(file, at, &content.bytes).map_err(host)?;
            at += content.bytes.len() as u64;
            if content.end {
                file.set_len(at).map_err(host)?;
                return Ok((digits(&hash.finalize()), at));
            }
            if at > most {
                return Err(Missing::Cut(format!("it comes to no end within {most} bytes")));
            }
            content = self.tree.read(path, at, MOST_READ).map_err(Missing::Guest)?;
        }
    }

    fn missing(&mut self, path: &[u8], missing: Missing) -> Result<(), Failure> {
        match missing {
            Missing::Guest(error) => {
                self.failures.add(&failure(path, &error));
                self.manifest.missing(path, &error)
            }
            Missing::Left(why) => self.manifest.left(path, &why),
            Missing::Cut(why) => {
                let text = format!("{}: {why}", crate::guest_tree::shown(path));
                self.failures.add(&Failure::new(Exit::Full, text));
                self.manifest.left(path, &why)
            }
            Missing::Host(failure) => {
                self.failures.add(&failure);
                self.manifest.left(path, &failure.to_string())
            }
        }
    }
}

/// Writes bytes at an offset; blocks of zeros are passed over.
fn write_sparse(file: &mut File, at: u64, bytes: &[u8]) -> io::Result<()> {
    let mut offset = at;
    for block in bytes.chunks(HOLE) {
        if block.iter().any(|&byte| byte != 0) {
            file.seek(SeekFrom::Start(offset))?;
            file.write_all(block)?;
        }
        offset += block.len() as u64;
    }
    Ok(())
}

/// Gives a copy the times and permissions of what it is a copy of, as far as this machine lets us.
/// The bits that give a program another user's rights are left out, and the owner may read it.
fn finish(file: &File, about: &Attributes) {
    let readable = if about.kind == Kind::Directory { 0o700 } else { 0o400 };
    drop(file.set_permissions(Permissions::from_mode(u32::from(about.mode) & 0o777 | readable)));
    let mut when = fs::FileTimes::new();
    for (time, set) in [
        (about.accessed, fs::FileTimes::set_accessed as fn(_, _) -> _),
        (about.modified, fs::FileTimes::set_modified),
    ] {
        if let Some(moment) = time.on_clock() {
            when = set(when, moment);
        }
    }
    drop(file.set_times(when));
}
