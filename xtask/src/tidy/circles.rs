//! No files of a crate import each other in a circle.
//!
//! Files of a circle can be understood, tested and moved only together. A file that only hands
//! names on does not depend on them, so `lib.rs` and `mod.rs` may re-export what imports them. A
//! circle that has to be says why in one of its files, in a comment that begins with `// Circle:`.

use std::collections::{BTreeMap, BTreeSet};

use super::imports::{Files, Import};

/// The circles of one crate, whose `src` is called `at`.
pub fn breaches(at: &str, files: &Files, imports: &[Import]) -> Vec<String> {
    let mut next: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for it in imports.iter().filter(|it| !it.facade) {
        next.entry(&it.from).or_default().insert(&it.to);
    }
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        next.keys().map(|file| (*file, reachable(&next, file))).collect();
    let reaches = |from: &str, to: &str| reached.get(from).is_some_and(|all| all.contains(to));
    let mut done = BTreeSet::new();
    let mut found = Vec::new();
    for file in next.keys() {
        let circle: BTreeSet<&str> =
            next.keys().copied().filter(|other| reaches(file, other) && reaches(other, file)).collect();
        if circle.len() < 2 || !done.insert(circle.clone()) {
            continue;
        }
        let says_why = |file: &&str| {
            let text = files.get(*file).map_or("", String::as_str);
            text.lines().any(|line| line.trim_start().starts_with("// Circle:"))
        };
        if !circle.iter().any(says_why) {
            found.push(describe(at, &circle, imports));
        }
    }
    found
}

fn reachable<'f>(next: &BTreeMap<&'f str, BTreeSet<&'f str>>, from: &'f str) -> BTreeSet<&'f str> {
    let (mut seen, mut work) = (BTreeSet::new(), vec![from]);
    while let Some(file) = work.pop() {
        work.extend(next.get(file).into_iter().flatten().filter(|file| seen.insert(**file)));
    }
    seen
}

fn describe(at: &str, circle: &BTreeSet<&str>, imports: &[Import]) -> String {
    let mut arrows: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for it in imports.iter().filter(|it| !it.facade) {
        if circle.contains(it.from.as_str()) && circle.contains(it.to.as_str()) {
            arrows.entry((&it.from, &it.to)).or_default().push(&it.name);
        }
    }
    let arrows =
        arrows.iter().map(|((from, to), names)| format!("\n    {from} -> {to}: {}", names.join(", ")));
    let files: Vec<&str> = circle.iter().copied().collect();
    format!("{at}: {} import each other:{}", files.join(", "), arrows.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::super::imports::{files, imports};
    use super::*;

    fn found(all: &[(&str, &str)]) -> Vec<String> {
        let files = files(all);
        breaches("crates/x/src", &files, &imports(&files))
    }

    #[test]
    fn files_that_import_each_other_are_reported_with_what_ties_them() {
        let all = [
            ("lib.rs", "mod a; mod b; mod c; mod d; pub use a::A; pub use d::D;"),
            ("a.rs", "use crate::b::B; use crate::c; pub struct A;"),
            ("b.rs", "pub struct B; fn f() { super::c::g() }"),
            ("c.rs", "use crate::{A, d::D};"),
            ("d.rs", "use crate::b;"),
        ];
        assert_eq!(
            found(&all),
            ["crates/x/src: a.rs, b.rs, c.rs, d.rs import each other:\
              \n    a.rs -> b.rs: crate::b::B\n    a.rs -> c.rs: crate::c\
              \n    b.rs -> c.rs: super::c::g\n    c.rs -> a.rs: crate::A\
              \n    c.rs -> d.rs: crate::d::D\n    d.rs -> b.rs: crate::b"]
        );
    }

    #[test]
    fn no_circle_is_reported_where_there_is_none() {
        let all = [
            ("lib.rs", "//! [`crate::a`]\nmod a; mod b; pub use b::B; pub struct Shared;"),
            ("a.rs", "use crate::{B, Shared}; // crate::c\n"),
            ("b.rs", "use crate::Shared; pub struct B; #[cfg(test)] mod tests { use crate::a; }"),
        ];
        assert_eq!(found(&all), [""; 0]);
    }

    #[test]
    fn a_parent_that_only_hands_on_may_be_imported_and_one_that_uses_may_not() {
        let child = ("a/b.rs", "use super::A; pub struct B;");
        let root = ("lib.rs", "mod a;");
        assert_eq!(found(&[root, child, ("a/mod.rs", "mod b; pub use b::B; pub struct A;")]), [""; 0]);
        let breaches = found(&[root, child, ("a/mod.rs", "mod b; pub use b::B; pub struct A(B);")]);
        assert_eq!(breaches.len(), 1);
        assert!(breaches[0].contains("a/mod.rs -> a/b.rs: b::B"), "{breaches:?}");
    }

    #[test]
    fn a_circle_may_say_why() {
        let why = "// Circle: one grammar, two files.\nuse crate::b::B; pub struct A;";
        let b = ("b.rs", "use crate::a::A; pub struct B;");
        assert_eq!(found(&[("lib.rs", "mod a; mod b;"), ("a.rs", why), b]), [""; 0]);
    }
}
