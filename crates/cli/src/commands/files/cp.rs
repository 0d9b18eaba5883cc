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
use filetree::{Attributes, Entry, Error, Kind, MOST_READ, Tree, is_name, join};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::manifest::Manifest;
use super::walk::{Directory, MOST_FILES, Refused, Walk};
use super::{Failures, guest_path};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::format::{digits, parse_number};
use crate::guest_tree::{TreeArgs, failure};

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
struct Copy<'c, 't, 'p> {
    arguments: &'c CpArgs,
    tree: &'t Tree<'p>,
    manifest: Manifest,
    failures: Failures,
    walk: Walk,
}

/// Why a file is not there.
enum Missing {
    /// The guest does not give it.
    Guest(Error),
    /// It is of a kind that is only listed.
    Left(String),
    /// It goes past a bound of ours.
    Cut(String),
    /// A walk does not go there.
    Refused(Refused),
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
            let (failures, walk) = (Failures::default(), Walk::new(MOST_FILES));
            let mut copy = Copy { arguments: self, tree, manifest, failures, walk };
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

impl Copy<'_, '_, '_> {
    /// Copies a path and what is below it. Directories get their times and permissions in the end.
    fn everything(
        &mut self,
        path: &[u8],
        dest: &Path,
        about: Attributes,
        context: Context,
    ) -> Result<(), Failure> {
        let mut waiting = vec![(path.to_vec(), dest.to_owned(), Some(about), None)];
        let mut directories = Vec::new();
        while let Some((path, dest, about, above)) = waiting.pop() {
            self.walk.left(&path);
            let known = about.map_or_else(|| self.tree.attributes(&path, false), Ok);
            let placed = known.map_err(Missing::Guest).and_then(|about| match &above {
                None => Ok((about, Directory::first(about))),
                Some(above) => {
                    let place = Directory::below(above, &path, Some(about)).map_err(Missing::Refused)?;
                    Ok((about, place))
                }
            });
            let copied = placed.and_then(|(about, place)| {
                let more = context.progress.during("copying", || self.one(&path, &dest, about))?;
                Ok((about, place, more))
            });
            let (about, place, more) = match copied {
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
            match self.inner(&path, &place) {
                Ok(entries) => waiting.extend(entries.into_iter().rev().map(|entry| {
                    let dest = dest.join(OsStr::from_bytes(&entry.name));
                    (join(&path, &entry.name), dest, None, Some(place.clone()))
                })),
                Err(missing) => {
                    if matches!(missing, Missing::Refused(Refused::All(_))) {
                        waiting.clear();
                    }
                    self.missing(&path, missing)?;
                }
            }
        }
        for (dest, about) in directories.iter().rev() {
            if let Ok(directory) = File::open(dest) {
                finish(&directory, about);
            }
        }
        Ok(())
    }

    /// The entries of a directory, where they may be walked.
    fn inner(&mut self, path: &[u8], place: &Directory) -> Result<Vec<Entry>, Missing> {
        let entries = self.tree.entries(path).map_err(Missing::Guest)?;
        let bytes = entries.iter().map(|entry| path.len() + entry.name.len() + 1).sum();
        self.walk.enter(path, place, entries.len(), bytes).map_err(Missing::Refused)?;
        Ok(entries)
    }

    /// Copies one file, link or directory without what is in it. Returns what the manifest says.
    fn one(&self, path: &[u8], dest: &Path, about: Attributes) -> Result<serde_json::Value, Missing> {
        let host = |error: io::Error| {
            let next = match error.kind() {
                io::ErrorKind::AlreadyExists => "give --force to replace it, or another destination",
                _ => "check the disk and the permissions",
            };
            // A name is the guest's, and may have ends of lines in it.
            let dest = crate::guest_tree::shown(dest.as_os_str().as_bytes());
            Missing::Host(Failure::input(format!("{dest}: cannot write it: {error}; {next}")))
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
            Missing::Refused(refused) => {
                let (Refused::This(why) | Refused::All(why)) = &refused;
                self.manifest.left(path, why)?;
                self.failures.refused(refused);
                Ok(())
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::hostile;

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        cp: CpArgs,
    }

    /// A directory of the test's own.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let place = std::env::temp_dir().join(format!("virtuoso-cp-{name}-{}", std::process::id()));
            drop(fs::remove_dir_all(&place));
            fs::create_dir_all(place.join("outside")).expect("a directory");
            Self(place)
        }

        fn names(&self, path: &str) -> Vec<String> {
            let names = fs::read_dir(self.0.join(path)).expect("a directory");
            let mut names: Vec<String> =
                names.flatten().map(|name| name.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        }

        /// Copies a path to `copy`; the manifest, and how it ended.
        fn copy(&self, words: &[&str], path: &str, most: usize) -> (String, Option<Exit>) {
            let dest = self.0.join("copy");
            let dest = dest.to_str().expect("text");
            let arguments = Words::parse_from([&["cp", "-r"], words, &["target", path, dest]].concat()).cp;
            let tree = hostile::tree(self.0.join("outside").as_os_str().as_bytes());
            let about = tree.attributes(path.as_bytes(), true).expect("attributes");
            let manifest = self.0.join("copy.manifest.jsonl");
            let mut copy = Copy {
                arguments: &arguments,
                tree: &tree,
                manifest: Manifest::new(manifest.clone(), arguments.force).expect("a manifest"),
                failures: Failures::default(),
                walk: Walk::new(most),
            };
            copy.everything(path.as_bytes(), Path::new(dest), about, Context::silent()).expect("copied");
            copy.manifest.finish().expect("written");
            assert_eq!(self.names("outside"), Vec::<String>::new(), "nothing outside is touched");
            assert_eq!(self.names(""), ["copy", "copy.manifest.jsonl", "outside"]);
            (fs::read_to_string(manifest).expect("a manifest"), copy.failures.0)
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn a_whole_hostile_tree_is_copied_up_to_bounds_and_nowhere_else() {
        let place = Place::new("all");
        let (manifest, exit) = place.copy(&["--max-file", "4194304"], "/", 2000);
        assert!(exit.is_some(), "{manifest}");
        for why in [
            "it is a directory that it lies in",
            "an entry whose name is none",
            "comes to no end",
            "9223372036854775808 bytes are more than --max-file",
            "it comes to no end within 4194304 bytes",
            "gives nothing and does not end",
            "more names than entries",
            "there are more than 2000 files",
        ] {
            assert!(manifest.contains(why), "{why}: {manifest}");
        }
        let link = fs::read_link(place.0.join("copy/out")).expect("a link");
        assert_eq!(link, place.0.join("outside"), "a link is made as one");
        assert_eq!(place.names("copy/odd").len(), 7);
        assert!(!place.0.join("copy/huge").exists() && !place.0.join("copy/more").exists());
    }

    #[test]
    fn a_link_that_becomes_a_directory_is_not_gone_through() {
        for words in [&[][..], &["--force"]] {
            let place = Place::new(&format!("twice{}", words.len()));
            let (manifest, exit) = place.copy(words, "/twice", MOST_FILES);
            assert!(manifest.contains("cannot write it") && exit == Some(Exit::Input), "{manifest}");
            assert!(fs::symlink_metadata(place.0.join("copy/x")).expect("a link").is_symlink());
        }
    }
}
