//! `virtuoso stat`: what the guest knows of a file without reading it.

use std::ffi::OsString;
use std::io::Write;

use clap::Args;
use engine::Text;
use filetree::{Attributes, Kind, Time};
use serde_json::{Value, json};

use super::{Failures, guest_path, times};
use crate::context::Context;
use crate::failure::Failure;
use crate::guest_tree::{TreeArgs, failure, shown};
use crate::output;

/// Print what the guest knows of files without reading them
///
/// Of a link it is the link itself, and where it leads.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso stat guest.elf /proc/1/exe
  virtuoso stat --json guest.elf /tmp /dev/null")]
pub struct StatArgs {
    /// Follow links, as the guest does
    #[arg(short = 'L')]
    follow: bool,
    #[command(flatten)]
    tree: TreeArgs,
    /// Paths in the guest
    #[arg(required = true)]
    paths: Vec<OsString>,
    /// Print one JSON object for each file
    #[arg(long)]
    json: bool,
}

impl StatArgs {
    /// Runs the verb.
    pub fn run(&self, context: Context) -> Result<(), Failure> {
        self.tree.ask_with(context, "stat", |tree, _, _| {
            let mut failures = Failures::default();
            for path in self.paths.iter().map(guest_path) {
                let about = match tree.attributes(&path, self.follow) {
                    Ok(about) => about,
                    Err(error) => {
                        failures.add(&failure(&path, &error));
                        continue;
                    }
                };
                let link = (about.kind == Kind::Link).then(|| tree.link(&path));
                let link = link.transpose().unwrap_or_else(|error| {
                    failures.add(&failure(&path, &error));
                    None
                });
                if self.json {
                    let mut object = json(&about);
                    object["path"] = json!(Text(path.clone()));
                    if let Some(link) = link {
                        object["link"] = json!(Text(link));
                    }
                    output::json(&object)?;
                } else {
                    print(&path, &about, link.as_deref())?;
                }
            }
            failures.end()
        })
    }
}

fn print(path: &[u8], about: &Attributes, link: Option<&[u8]>) -> Result<(), Failure> {
    let mut out = output::stdout();
    let to = link.map_or(String::new(), |to| format!(" -> {}", shown(to)));
    writeln!(out, "{}{to}", shown(path))?;
    writeln!(out, "  kind      {}", about.kind.word())?;
    writeln!(out, "  mode      {:04o} {}", about.mode & 0o7777, about.permissions())?;
    writeln!(
        out,
        "  size      {} ({} blocks of 512 bytes, best read by {})",
        about.size, about.blocks, about.block_size
    )?;
    writeln!(
        out,
        "  inode     {} on device {}:{}, {} names",
        about.inode, about.device.0, about.device.1, about.links
    )?;
    if matches!(about.kind, Kind::CharacterDevice | Kind::BlockDevice) {
        writeln!(out, "  device    {}:{}", about.special.0, about.special.1)?;
    }
    writeln!(out, "  owner     {}:{}", about.user, about.group)?;
    writeln!(out, "  accessed  {}", times::text(about.accessed))?;
    writeln!(out, "  modified  {}", times::text(about.modified))?;
    writeln!(out, "  changed   {}", times::text(about.changed))?;
    if let Some(born) = about.born {
        writeln!(out, "  born      {}", times::text(born))?;
    }
    Ok(out.flush()?)
}

/// Attributes as JSON: times as text, and as `[seconds, nanoseconds]`.
pub fn json(about: &Attributes) -> Value {
    let exact = |time: Time| json!([time.seconds, time.nanoseconds]);
    json!({
        "kind": about.kind.word(), "mode": about.mode, "permissions": about.permissions(),
        "links": about.links, "user": about.user, "group": about.group, "inode": about.inode,
        "size": about.size, "blocks": about.blocks, "block_size": about.block_size,
        "device": about.device, "special": about.special,
        "accessed": exact(about.accessed), "modified": exact(about.modified),
        "changed": exact(about.changed), "born": about.born.map(exact),
        "modified_text": times::text(about.modified),
    })
}
