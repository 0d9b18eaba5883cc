//! `virtuoso ls`: directories of the guest.

use std::ffi::OsString;
use std::io::Write;

use clap::Args;
use engine::Text;
use filetree::{Attributes, Entry, Error, Kind, Tree, join};
use serde_json::{Value, json};

use super::walk::{Directory, MOST_FILES, Refused, Walk};
use super::{Failures, guest_path, times};
use crate::context::Context;
use crate::failure::Failure;
use crate::guest_tree::{TreeArgs, failure, shown};
use crate::output;

/// List directories of the guest, by its own system calls
///
/// Names are sorted by their bytes. What a terminal would obey in a name is escaped.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso ls guest.elf /proc/1/fd
  virtuoso ls -l guest.elf /tmp
  virtuoso ls -R --json guest.elf /sys/class")]
pub struct LsArgs {
    /// Print attributes, and where links lead
    #[arg(short)]
    long: bool,
    /// Print names that begin with a dot as well
    #[arg(short)]
    all: bool,
    /// Print the directories in it as well, and those in them
    #[arg(short = 'R')]
    recursive: bool,
    #[command(flatten)]
    tree: TreeArgs,
    /// Path in the guest
    #[arg(default_value = "/")]
    path: OsString,
    /// Print one JSON object for each directory
    #[arg(long)]
    json: bool,
}

/// A file's attributes, and where it leads if it is a link.
type Known = (Attributes, Option<Result<Vec<u8>, Error>>);

/// A line: a name, and with `-l` what is known of it.
struct Line {
    name: Vec<u8>,
    kind: Kind,
    inode: u64,
    more: Option<Result<Known, Error>>,
}

impl LsArgs {
    /// Runs the verb.
    pub fn run(&self, context: Context) -> Result<(), Failure> {
        self.tree.ask(context, |tree, _| {
            let path = guest_path(&self.path);
            let about = tree.attributes(&path, !self.long).or_else(|_| tree.attributes(&path, false));
            let about = about.map_err(|error| failure(&path, &error))?;
            let mut failures = Failures::default();
            if about.kind != Kind::Directory {
                let entry = Entry { name: path.clone(), kind: about.kind, inode: about.inode };
                let line = self.line(tree, &path, entry);
                self.print(&path, &[line], &mut failures, &mut output::stdout())?;
                return failures.end();
            }
            let mut walk = Walk::new(MOST_FILES);
            self.directory(tree, &path, about, &mut walk, &mut failures, &mut output::stdout())?;
            failures.end()
        })
    }

    /// Prints a directory, and with `-R` those in it; it fails only where nothing can be printed.
    fn directory(
        &self,
        tree: &Tree<'_>,
        path: &[u8],
        about: Attributes,
        walk: &mut Walk,
        failures: &mut Failures,
        out: &mut dyn Write,
    ) -> Result<(), Failure> {
        let mut waiting = vec![(path.to_vec(), None)];
        let mut first = true;
        while let Some((path, above)) = waiting.pop() {
            walk.left(&path);
            let place = match &above {
                None => Ok(Directory::first(about)),
                // What it is, is asked only to see that it lies in none that it is itself.
                Some(above) => Directory::below(above, &path, tree.attributes(&path, false).ok()),
            };
            let place = match place {
                Ok(place) => place,
                Err(refused) => {
                    failures.refused(refused);
                    continue;
                }
            };
            let mut entries = match tree.entries(&path) {
                Ok(entries) => entries,
                Err(error) => {
                    failures.add(&failure(&path, &error));
                    continue;
                }
            };
            entries.retain(|entry| self.all || entry.name.first() != Some(&b'.'));
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            let inner = entries.iter().rev().filter(|entry| self.recursive && entry.kind == Kind::Directory);
            let inner: Vec<_> = inner.map(|entry| (join(&path, &entry.name), Some(place.clone()))).collect();
            let bytes = inner.iter().map(|(path, _)| path.len()).sum();
            let entered = walk.enter(&path, &place, inner.len(), bytes);
            if self.recursive && !self.json {
                writeln!(out, "{}{}:", if first { "" } else { "\n" }, shown(&path))?;
                out.flush()?;
            }
            first = false;
            let lines: Vec<Line> =
                entries.into_iter().map(|entry| self.line(tree, &join(&path, &entry.name), entry)).collect();
            self.print(&path, &lines, failures, out)?;
            match entered {
                Ok(()) => waiting.extend(inner),
                Err(refused) => {
                    if matches!(refused, Refused::All(_)) {
                        waiting.clear();
                    }
                    failures.refused(refused);
                }
            }
        }
        Ok(())
    }

    fn line(&self, tree: &Tree<'_>, path: &[u8], entry: Entry) -> Line {
        let more = || {
            let about = tree.attributes(path, false)?;
            let link = (about.kind == Kind::Link).then(|| tree.link(path));
            Ok((about, link))
        };
        let more = self.long.then(more);
        let Entry { name, kind, inode } = entry;
        Line { name, kind, inode, more }
    }

    fn print(
        &self,
        path: &[u8],
        lines: &[Line],
        failures: &mut Failures,
        out: &mut dyn Write,
    ) -> Result<(), Failure> {
        if self.json {
            let entries: Vec<Value> = lines.iter().map(Line::json).collect();
            output::json(&json!({ "path": Text(path.to_vec()), "entries": entries }))?;
        } else {
            for line in lines {
                writeln!(out, "{}", line.text())?;
            }
            out.flush()?;
        }
        for line in lines {
            let error = match &line.more {
                Some(Err(error) | Ok((_, Some(Err(error))))) => error,
                _ => continue,
            };
            let whole =
                if lines.len() == 1 && line.name == path { path.to_vec() } else { join(path, &line.name) };
            failures.add(&failure(&whole, error));
        }
        Ok(())
    }
}

impl Line {
    fn text(&self) -> String {
        let name = shown(&self.name);
        match &self.more {
            None => name,
            // What is not known has a question mark, as `ls` prints it.
            Some(Err(_)) => format!("{}????????? ? ? ? ? ? {name}", self.kind.letter()),
            Some(Ok((about, link))) => {
                let size = match about.kind {
                    Kind::CharacterDevice | Kind::BlockDevice => {
                        format!("{}, {}", about.special.0, about.special.1)
                    }
                    _ => about.size.to_string(),
                };
                let to = match link {
                    None => String::new(),
                    Some(Ok(to)) => format!(" -> {}", shown(to)),
                    Some(Err(_)) => " -> ?".to_owned(),
                };
                let (permissions, time) = (about.permissions(), times::text(about.modified));
                let (links, user, group) = (about.links, about.user, about.group);
                format!("{permissions} {links} {user} {group} {size} {time} {name}{to}")
            }
        }
    }

    fn json(&self) -> Value {
        let mut object = match &self.more {
            Some(Ok((about, link))) => {
                let mut object = super::stat::json(about);
                match link {
                    Some(Ok(to)) => object["link"] = json!(Text(to.clone())),
                    Some(Err(error)) => object["error"] = json!(error.to_string()),
                    None => {}
                }
                object
            }
            Some(Err(error)) => json!({ "error": error.to_string() }),
            None => json!({}),
        };
        object["name"] = json!(Text(self.name.clone()));
        object["kind"] = json!(self.kind.word());
        object["inode"] = json!(self.inode);
        object
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::exit::Exit;
    use crate::hostile;

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        ls: LsArgs,
    }

    fn listed(words: &[&str], path: &str, most: usize) -> (String, Option<Exit>) {
        let words = Words::parse_from([&["ls"], words, &["target", path]].concat());
        let tree = hostile::tree(b"/etc");
        let about = tree.attributes(path.as_bytes(), false).expect("attributes");
        let (mut out, mut failures) = (Vec::new(), Failures::default());
        let mut walk = Walk::new(most);
        let printed = words.ls.directory(&tree, path.as_bytes(), about, &mut walk, &mut failures, &mut out);
        printed.expect("printed");
        assert!(hostile::is_plain(&out), "{path}");
        (String::from_utf8(out).expect("text"), failures.0)
    }

    #[test]
    fn a_directory_that_lies_in_itself_is_listed_once() {
        let (text, exit) = listed(&["-R"], "/cycle", MOST_FILES);
        assert_eq!((text.as_str(), exit), ("/cycle:\nagain\nand-again\n", Some(Exit::Full)));
    }

    #[test]
    fn directories_without_end_are_listed_up_to_a_bound() {
        let (text, exit) = listed(&["-R"], "/spiral", 1000);
        assert!(text.lines().filter(|line| line.ends_with(':')).count() <= 1000);
        assert!(text.contains("left/left/left") && exit == Some(Exit::Full));
    }

    #[test]
    fn names_that_are_none_make_an_error_and_odd_ones_are_plain() {
        let (text, exit) = listed(&["-R", "-l"], "/names", MOST_FILES);
        assert_eq!(exit, Some(Exit::Input), "{text}");
        assert!(text.lines().count() == 4 && !text.contains("a/../../b"), "{text}");
        let (text, exit) = listed(&["-l"], "/odd", MOST_FILES);
        assert_eq!((text.lines().count(), exit), (7, None), "{text}");
        let (text, exit) = listed(&["-R", "-l"], "/", 1000);
        assert!(text.contains("9223372036854775808") && text.contains("out -> /etc"), "{text}");
        assert!(exit.is_some());
    }
}
