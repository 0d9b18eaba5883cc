//! `virtuoso packs list`: which packs there are, and whether they can be used.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::{Args, Subcommand};
use engine::Text;
use ir::Program;
use serde_json::{Value, json};

use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::pack_info::{self, PackInfo};
use crate::packs::{default_directory, directories};
use crate::statistics::companion_name;
use crate::{files, format, output};

/// Packs: the programs of one kernel each
#[derive(Subcommand, Debug)]
pub enum Verb {
    List(ListArgs),
}

impl Verb {
    /// Runs the verb.
    pub fn run(self, context: Context) -> Result<(), Failure> {
        match self {
            Self::List(args) => args.run(context),
        }
    }
}

/// List the packs of a directory: of which kernel, with which programs, when made
///
/// Every file is read and checked: what is damaged or missing is named on standard error, and the
/// exit code is 1 then.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso packs list
  virtuoso packs list --packs packs --json")]
pub struct ListArgs {
    /// A directory of packs [default: $XDG_DATA_HOME/virtuoso/packs]
    #[arg(long, value_name = "DIR")]
    packs: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl ListArgs {
    fn run(&self, context: Context) -> Result<(), Failure> {
        let packs = self.packs.clone().map_or_else(default_directory, Ok)?;
        let nobody = self.packs.is_none() && !packs.exists();
        let all = if nobody { Vec::new() } else { directories(&packs)? };
        let all: Vec<Pack> = all.iter().filter_map(|directory| Pack::read(directory)).collect();
        if self.json {
            let list: Vec<Value> = all.iter().map(Pack::json).collect();
            output::json(&json!({ "directory": Text::of_path(&packs), "packs": list }))?;
        } else {
            let mut out = output::stdout();
            for pack in &all {
                pack.print(&packs, &mut out)?;
            }
            out.flush()?;
        }
        if all.is_empty() && !context.quiet {
            let text = "there are no packs in it; `virtuoso train --for TARGET` makes one";
            output::note(&format!("{}: {text}", packs.display()));
        }
        let damage: Vec<&String> = all.iter().flat_map(|pack| &pack.damage).collect();
        damage.iter().for_each(|what| output::note(what));
        if damage.is_empty() { Ok(()) } else { Err(Failure::quiet(Exit::Input)) }
    }
}

/// A pack as it was found.
struct Pack {
    directory: PathBuf,
    info: Option<PackInfo>,
    /// Names of the programs that can be used.
    programs: Vec<String>,
    /// How many recordings they were made of.
    recordings: usize,
    /// Bytes of all files in it.
    size: u64,
    /// When it was made, as far as is known.
    made: Option<String>,
    /// What is wrong with it.
    damage: Vec<String>,
}

impl Pack {
    /// Looks at a directory; `None` if it is none of a pack.
    fn read(directory: &Path) -> Option<Self> {
        let entries = std::fs::read_dir(directory).ok()?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| path.is_file());
        paths.sort();
        let ends = |path: &PathBuf, ending: &str| path.extension().is_some_and(|it| it == ending);
        let is_part =
            |it: &PathBuf| ends(it, "prog") || ends(it, "system") || files::name(it) == pack_info::FILE;
        if !paths.iter().any(is_part) {
            return None;
        }
        let mut pack = Self {
            directory: directory.to_owned(),
            info: None,
            programs: Vec::new(),
            recordings: 0,
            size: paths.iter().filter_map(|path| path.metadata().ok()).map(|meta| meta.len()).sum(),
            made: None,
            damage: Vec::new(),
        };
        match PackInfo::read(directory) {
            Ok(info) => pack.info = info,
            Err(failure) => pack.damage.push(failure.to_string()),
        }
        let mut companions = BTreeSet::new();
        let mut newest: Option<SystemTime> = None;
        for path in paths.iter().filter(|path| ends(path, "prog")) {
            newest = newest.max(path.metadata().and_then(|meta| meta.modified()).ok());
            match files::program(path) {
                Ok(program) => pack.add(path, &program, &mut companions),
                Err(failure) => pack.damage.push(failure.to_string()),
            }
        }
        companions.into_iter().for_each(|(path, hash)| pack.check(&path, hash));
        if !paths.iter().any(|path| ends(path, "prog")) {
            let what = "it has no program; train again";
            pack.damage.push(format!("{}: {what}", directory.display()));
        }
        let by_files = newest.map(|time| humantime::format_rfc3339_seconds(time).to_string());
        pack.made = pack.info.as_ref().map(|info| info.made.clone()).or(by_files);
        Some(pack)
    }

    fn add(&mut self, path: &Path, program: &Program, companions: &mut BTreeSet<(PathBuf, [u8; 32])>) {
        self.programs.push(files::name(path).trim_end_matches(".prog").to_owned());
        self.recordings += program.provenance.sources.len();
        companions.insert((path.with_file_name(companion_name(&program.system)), program.system));
    }

    /// Checks a companion file, all of it.
    fn check(&mut self, path: &Path, hash: [u8; 32]) {
        let checked = files::system(path).and_then(|system| {
            if system.hash() != hash {
                let what = "it is another one than the programs name; train again";
                return Err(Failure::file(path, what));
            }
            system.check().map_err(|error| Failure::file(path, format!("{error}; train again")))
        });
        if let Err(failure) = checked {
            self.damage.push(failure.to_string());
        }
    }

    fn name(&self, packs: &Path) -> String {
        match self.directory.strip_prefix(packs) {
            Ok(name) if !name.as_os_str().is_empty() => name.display().to_string(),
            _ => self.directory.display().to_string(),
        }
    }

    fn print(&self, packs: &Path, out: &mut impl Write) -> Result<(), Failure> {
        let made = self.made.as_ref().map_or(String::new(), |made| format!(", made {made}"));
        let damaged = if self.damage.is_empty() { "" } else { ", DAMAGED" };
        let line = format!(
            "{}: {} of {}, {}{made}{damaged}",
            self.name(packs),
            format::counted(self.programs.len(), "program"),
            format::counted(self.recordings, "recording"),
            format::size(self.size),
        );
        writeln!(out, "{}", format::plain(&line))?;
        let kernel = match &self.info {
            Some(PackInfo { banner: Some(banner), .. }) => banner.as_str(),
            Some(PackInfo { kernel, .. }) => kernel.as_str(),
            None => "of which kernel is not noted",
        };
        writeln!(out, "  {}", format::plain(kernel))?;
        writeln!(out, "  {}", format::plain(&self.programs.join(" ")))?;
        Ok(())
    }

    fn json(&self) -> Value {
        let info = self.info.as_ref();
        json!({
            "path": Text::of_path(&self.directory),
            "banner": info.and_then(|it| it.banner.clone()),
            "kernel": info.map(|it| it.kernel.clone()),
            "packages": info.map_or(Vec::new(), |it| it.packages.clone()),
            "made": self.made,
            "by": info.map(|it| it.by.clone()),
            "programs": self.programs,
            "recordings": self.recordings,
            "bytes": self.size,
            "damage": self.damage,
        })
    }
}
