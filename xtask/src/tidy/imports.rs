//! Which file of a crate imports what from which other one.
//!
//! A path leads to the deepest module file it names, and a name that a file only re-exports to the
//! file it comes from: `use crate::Error` is an import of `error.rs`, not of `lib.rs`. A module is
//! read as far as `mod` declarations reach it; `#[path]` is not followed.

use std::collections::BTreeMap;

use super::parse::{Module, Use, modules};

/// The text of a crate's files, by path in its `src`, with `/`.
pub type Files = BTreeMap<String, String>;

/// One import.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Import {
    /// The file that imports.
    pub from: String,
    /// The file that the name is in.
    pub to: String,
    /// The path as it is written.
    pub name: String,
    /// It is only handed on: nothing else in the file names it.
    pub facade: bool,
}

/// All imports between files of a crate, of each of its roots (`lib.rs`, `main.rs`, `bin`).
pub fn imports(files: &Files) -> Vec<Import> {
    let roots = files.keys().filter(|path| {
        *path == "lib.rs"
            || *path == "main.rs"
            || path.strip_prefix("bin/").is_some_and(|it| !it.contains('/'))
    });
    let mut found: Vec<Import> = roots.flat_map(|root| Tree::new(files, root).imports()).collect();
    found.sort();
    found.dedup();
    found
}

/// The modules under one root, by path.
struct Tree(BTreeMap<Vec<String>, (String, Module)>);

/// Where a path leads.
#[derive(Clone, PartialEq, Eq)]
enum Place {
    Module(Vec<String>),
    /// Something in this file.
    Item(String),
}

/// Re-exports that are followed one after another; more go round.
const MAX_STEPS: usize = 16;

impl Tree {
    fn new(files: &Files, root: &str) -> Self {
        let mut tree = BTreeMap::new();
        let mut work = vec![(Vec::new(), root.to_string())];
        while let Some((path, file)) = work.pop() {
            let Some(text) = files.get(&file) else { continue };
            let (directory, name) = file.rsplit_once('/').unwrap_or(("", &file));
            let mut home: Vec<&str> = directory.split('/').filter(|part| !part.is_empty()).collect();
            if !path.is_empty() && name != "mod.rs" {
                home.push(name.trim_end_matches(".rs"));
            }
            for module in modules(text) {
                let here: Vec<String> = path.iter().chain(&module.inner).cloned().collect();
                for child in &module.declared {
                    let parts = home.iter().copied().chain(module.inner.iter().map(String::as_str));
                    let at: Vec<&str> = parts.chain([child.as_str()]).collect();
                    let candidates = [format!("{}.rs", at.join("/")), format!("{}/mod.rs", at.join("/"))];
                    let found = candidates.into_iter().find(|path| files.contains_key(path));
                    work.extend(found.map(|file| (here.iter().chain([child]).cloned().collect(), file)));
                }
                tree.insert(here, (file.clone(), module));
            }
        }
        Self(tree)
    }

    fn imports(&self) -> Vec<Import> {
        let mut found = Vec::new();
        for (path, (file, module)) in &self.0 {
            let mut add = |names: &[String], facade: bool| {
                let to = match self.resolve(path, names, 0) {
                    Some(Place::Module(module)) => self.0[&module].0.clone(),
                    Some(Place::Item(file)) => file,
                    None => return,
                };
                if to != *file {
                    found.push(Import { from: file.clone(), to, name: names.join("::"), facade });
                }
            };
            for it in &module.uses {
                add(&it.path, it.public && !module.words.contains(&it.name));
            }
            for names in module.paths.iter().filter(|names| !self.is_imported(path, &names[0])) {
                add(names, false);
            }
        }
        found
    }

    /// Whether a name is that of an imported item, which was an import already.
    fn is_imported(&self, module: &[String], name: &str) -> bool {
        let mut uses = self.0[module].1.uses.iter().filter(|it| it.name == name);
        !self.0.contains_key(&child(module, name))
            && uses.any(|it| !matches!(self.resolve(module, &it.path, 0), Some(Place::Module(_))))
    }

    /// Where a path leads that is written in a module; `None` for another crate.
    fn resolve(&self, module: &[String], path: &[String], steps: usize) -> Option<Place> {
        let mut rest = path;
        let mut here = match path.first()?.as_str() {
            "crate" => {
                rest = &rest[1..];
                Vec::new()
            }
            "self" => {
                rest = &rest[1..];
                module.to_vec()
            }
            "super" => module.to_vec(),
            first => {
                let known = |it: &Use| !it.local && it.name == first && it.path != path[..1];
                if !self.0.contains_key(&child(module, first)) && !self.0[module].1.uses.iter().any(known) {
                    return None;
                }
                module.to_vec()
            }
        };
        while let Some((first, after)) = rest.split_first() {
            if first == "super" {
                here.pop()?;
                rest = after;
                continue;
            }
            match self.step(&here, first, steps)? {
                Place::Module(module) => here = module,
                item @ Place::Item(_) => return Some(item),
            }
            rest = after;
        }
        Some(Place::Module(here))
    }

    /// What a name means in a module, which may have it from elsewhere; `None` if from another
    /// crate.
    fn step(&self, module: &[String], name: &str, steps: usize) -> Option<Place> {
        let inner = child(module, name);
        if self.0.contains_key(&inner) {
            return Some(Place::Module(inner));
        }
        let (file, here) = &self.0[module];
        let own = Some(Place::Item(file.clone()));
        if here.items.contains(name) || steps > MAX_STEPS {
            return own;
        }
        let uses = || here.uses.iter().filter(|it| !it.local);
        if let Some(it) = uses().find(|it| it.name == name) {
            return self.resolve(module, &it.path, steps + 1);
        }
        let globs = uses().filter(|it| it.name == "*");
        let elsewhere = globs.filter_map(|it| match self.resolve(module, &it.path, steps + 1)? {
            Place::Module(other) if other != module => {
                self.has(&other, name).then(|| self.step(&other, name, steps + 1))?
            }
            _ => None,
        });
        elsewhere.into_iter().next().or(own)
    }

    /// Whether a module defines or imports a name itself.
    fn has(&self, module: &[String], name: &str) -> bool {
        let here = &self.0[module].1;
        here.items.contains(name)
            || here.uses.iter().any(|it| !it.local && it.name == name)
            || self.0.contains_key(&child(module, name))
    }
}

fn child(module: &[String], name: &str) -> Vec<String> {
    module.iter().cloned().chain([name.to_string()]).collect()
}

/// Files for tests, of path and text.
#[cfg(test)]
pub fn files(all: &[(&str, &str)]) -> Files {
    all.iter().map(|(path, text)| ((*path).to_string(), (*text).to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrows(all: &[(&str, &str)]) -> Vec<String> {
        let shown = imports(&files(all)).into_iter().map(|it| {
            format!("{} -> {} ({}{})", it.from, it.to, it.name, if it.facade { ", handed on" } else { "" })
        });
        shown.collect()
    }

    #[test]
    fn a_path_leads_to_the_deepest_file_it_names() {
        let all = [
            ("lib.rs", "mod a; mod d;"),
            ("a/mod.rs", "mod b; mod c { pub struct InC; } pub struct InA;"),
            ("a/b.rs", "pub fn f() { super::c::g() } use std::fmt; use machine::a::b;"),
            ("d.rs", "mod e; use crate::a::{b::f, c::InC, InA}; fn g() { crate::a::b::f(); e::h::i() }"),
            ("d/e.rs", "use super::super::a::b; use crate::missing::X;"),
        ];
        assert_eq!(
            arrows(&all),
            [
                "a/b.rs -> a/mod.rs (super::c::g)",
                "d.rs -> a/b.rs (crate::a::b::f)",
                "d.rs -> a/mod.rs (crate::a::InA)",
                "d.rs -> a/mod.rs (crate::a::c::InC)",
                "d.rs -> d/e.rs (e::h::i)",
                "d/e.rs -> a/b.rs (super::super::a::b)",
                "d/e.rs -> lib.rs (crate::missing::X)",
            ]
        );
    }

    #[test]
    fn a_name_that_is_handed_on_leads_to_where_it_comes_from() {
        let all = [
            (
                "lib.rs",
                "mod error; mod a; mod b; pub use error::Error; pub(crate) use a::*; pub struct Here;",
            ),
            ("error.rs", "pub enum Error {}"),
            ("a/mod.rs", "mod deep; pub use deep::Deep; pub use self::deep::Used as U; fn f(_: U) {}"),
            ("a/deep.rs", "pub struct Deep; pub struct Used;"),
            (
                "b.rs",
                "use crate::{Error, Here}; use crate::a::Deep; fn f() { crate::Deep::new(); Here::g() }",
            ),
        ];
        assert_eq!(
            arrows(&all),
            [
                "a/mod.rs -> a/deep.rs (deep::Deep, handed on)",
                "a/mod.rs -> a/deep.rs (self::deep::Used)",
                "b.rs -> a/deep.rs (crate::Deep::new)",
                "b.rs -> a/deep.rs (crate::a::Deep)",
                "b.rs -> error.rs (crate::Error)",
                "b.rs -> lib.rs (crate::Here)",
                "lib.rs -> a/mod.rs (a, handed on)",
                "lib.rs -> error.rs (error::Error, handed on)",
            ]
        );
    }

    #[test]
    fn an_imported_module_is_followed_and_tests_are_not_read() {
        let all = [
            ("main.rs", "mod a; mod b; fn main() { a::run() }"),
            ("a.rs", "use crate::b; #[cfg(test)] mod tests; fn run() { b::c::f() }"),
            ("a/tests.rs", "use crate::main;"),
            ("b.rs", "pub mod c;"),
            ("b/c.rs", "pub fn f() {}"),
        ];
        assert_eq!(
            arrows(&all),
            ["a.rs -> b.rs (crate::b)", "a.rs -> b/c.rs (b::c::f)", "main.rs -> a.rs (a::run)"]
        );
    }

    #[test]
    fn re_exports_that_go_round_end() {
        arrows(&[("lib.rs", "mod a; pub use a::X;"), ("a.rs", "pub use crate::X; fn f(_: X) {}")]);
    }
}
