//! What one file says of modules: those it declares, what it imports, which paths its code names.
//!
//! Items under `#[cfg(test)]` are left out, and with them the files of test modules. Macros are not
//! expanded: what only an expansion defines or imports is not seen.

use std::collections::BTreeSet;

use super::tokens::{Token, tokens};

/// A module written in a file: the file's own, or one in braces in it.
#[derive(Default, Debug)]
pub struct Module {
    /// Names of the modules around it that are written in the same file, and its own; empty for the
    /// file's.
    pub inner: Vec<String>,
    /// Modules that it declares and that have files of their own.
    pub declared: Vec<String>,
    /// Its imports.
    pub uses: Vec<Use>,
    /// Other paths in its code.
    pub paths: Vec<Vec<String>>,
    /// Items that it defines.
    pub items: BTreeSet<String>,
    /// Names that its code begins a path with, or uses alone.
    pub words: BTreeSet<String>,
}

/// One name that is imported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Use {
    /// The path, without a final `self`; of `a::*` only `a`.
    pub path: Vec<String>,
    /// The name it has here; `*` if it is all names.
    pub name: String,
    /// Others may import it from here.
    pub public: bool,
    /// It is written in a function and is known there only.
    pub local: bool,
}

/// The modules of a file, its own first.
pub fn modules(text: &str) -> Vec<Module> {
    let mut parser = Parser { tokens: tokens(text), at: 0, modules: vec![Module::default()] };
    parser.file();
    parser.modules
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    modules: Vec<Module>,
}

/// Words before the name of an item.
const ITEMS: [&str; 9] = ["fn", "struct", "enum", "union", "trait", "type", "const", "static", "macro_rules"];

impl Parser {
    fn get(&self, at: usize) -> Option<&Token> {
        self.tokens.get(at)
    }

    fn is_sign(&self, at: usize, sign: char) -> bool {
        self.get(at).is_some_and(|token| token.is_sign(sign))
    }

    fn file(&mut self) {
        // The module that is open, and how many braces were open before its own.
        let mut open = vec![(0usize, 0usize)];
        let (mut depth, mut public) = (0usize, false);
        while let Some(token) = self.get(self.at).cloned() {
            let &(module, outside) = open.last().unwrap_or(&(0, 0));
            let base = if open.len() > 1 { outside + 1 } else { 0 };
            let was_public = std::mem::take(&mut public);
            match token {
                Token::Sign('#') if self.is_sign(self.at + 1, '[') => self.attribute(),
                Token::Sign('{') => (depth, self.at) = (depth + 1, self.at + 1),
                Token::Sign('}') => {
                    (depth, self.at) = (depth.saturating_sub(1), self.at + 1);
                    if open.len() > 1 && depth == outside {
                        open.pop();
                    }
                }
                Token::Word(word) if word == "pub" => {
                    public = true;
                    self.at += 1;
                    if self.is_sign(self.at, '(') {
                        self.at = self.behind(self.at);
                    }
                }
                Token::Word(word) if word == "use" && !self.is_sign(self.at + 1, '<') => {
                    self.at += 1;
                    let mut found = Vec::new();
                    self.tree(&mut Vec::new(), &mut found);
                    let local = depth > base;
                    let found =
                        found.into_iter().map(|(path, name)| Use { path, name, public: was_public, local });
                    self.modules[module].uses.extend(found);
                }
                Token::Word(word)
                    if word == "mod" && self.get(self.at + 1).is_some_and(|it| it.word().is_some()) =>
                {
                    let name = self.get(self.at + 1).and_then(Token::word).unwrap_or_default().to_string();
                    self.at += 2;
                    if self.is_sign(self.at, '{') {
                        let mut inner = self.modules[module].inner.clone();
                        inner.push(name);
                        self.modules.push(Module { inner, ..Module::default() });
                        open.push((self.modules.len() - 1, depth));
                        (depth, self.at) = (depth + 1, self.at + 1);
                    } else {
                        self.modules[module].declared.push(name);
                    }
                }
                Token::Word(word) => {
                    if depth == base && ITEMS.contains(&word.as_str()) {
                        let name = (self.at + 1..self.at + 3).find_map(|at| match self.get(at)?.word()? {
                            "fn" | "mut" | "unsafe" | "extern" | "_" => None,
                            name => Some(name.to_string()),
                        });
                        // The name behind `!`.
                        let name = name.or_else(|| Some(self.get(self.at + 2)?.word()?.to_string()));
                        self.modules[module].items.extend(name);
                    }
                    self.path(module, word);
                }
                Token::Colons | Token::Sign(_) => self.at += 1,
            }
        }
    }

    /// A word of code, and the path that begins with it.
    fn path(&mut self, module: usize, first: String) {
        let before = self.at.checked_sub(1).and_then(|at| self.get(at));
        let begins = before.is_none_or(|token| *token != Token::Colons && !token.is_sign('.'));
        let mut path = vec![first];
        self.at += 1;
        while let (Some(Token::Colons), Some(Token::Word(next))) = (self.get(self.at), self.get(self.at + 1))
        {
            path.push(next.clone());
            self.at += 2;
        }
        if begins {
            self.modules[module].words.insert(path[0].clone());
            if path.len() > 1 {
                self.modules[module].paths.push(path);
            }
        }
    }

    /// One branch of an import, up to the sign behind it, which it takes if it is `;`.
    fn tree(&mut self, prefix: &mut Vec<String>, found: &mut Vec<(Vec<String>, String)>) {
        let long = prefix.len();
        loop {
            match self.get(self.at).cloned() {
                Some(Token::Word(word)) if word == "as" => {
                    let name = self.get(self.at + 1).and_then(Token::word).unwrap_or("_").to_string();
                    self.at += 2;
                    if prefix.last().is_some_and(|last| last == "self") && prefix.len() > 1 {
                        prefix.pop();
                    }
                    found.push((prefix.clone(), name));
                    prefix.truncate(long);
                }
                Some(Token::Word(word)) => {
                    prefix.push(word);
                    self.at += 1;
                }
                Some(Token::Colons) => self.at += 1,
                Some(Token::Sign('*')) => {
                    found.push((prefix.clone(), "*".into()));
                    prefix.truncate(long);
                    self.at += 1;
                }
                Some(Token::Sign('{')) => {
                    self.at += 1;
                    while self.at < self.tokens.len() && !self.is_sign(self.at, '}') {
                        self.tree(prefix, found);
                        if self.is_sign(self.at, ',') {
                            self.at += 1;
                        } else if !self.is_sign(self.at, '}') {
                            return;
                        }
                    }
                    self.at += 1;
                    prefix.truncate(long);
                }
                end => {
                    if prefix.len() > long {
                        if prefix.last().is_some_and(|last| last == "self") && prefix.len() > 1 {
                            prefix.pop();
                        }
                        found.push((prefix.clone(), prefix.last().cloned().unwrap_or_default()));
                    }
                    prefix.truncate(long);
                    if end.is_some_and(|end| end.is_sign(';')) {
                        self.at += 1;
                    }
                    return;
                }
            }
        }
    }

    /// An attribute, and what it is on if that is for tests only.
    fn attribute(&mut self) {
        let end = self.behind(self.at + 1);
        let inside = &self.tokens[self.at + 2..end.min(self.tokens.len())];
        let says = |word: &str| inside.iter().any(|token| token.is(word));
        let test = inside.first().is_some_and(|token| token.is("cfg")) && says("test") && !says("not");
        self.at = end;
        if test {
            self.skip_item();
        }
    }

    fn skip_item(&mut self) {
        while self.is_sign(self.at, '#') && self.is_sign(self.at + 1, '[') {
            self.at = self.behind(self.at + 1);
        }
        let mut import = false;
        // A field, a variant or an arm ends with a comma; generic parameters have commas too.
        let mut item = false;
        while let Some(token) = self.get(self.at) {
            match token {
                Token::Sign(';') => {
                    self.at += 1;
                    return;
                }
                Token::Sign(',') if !item => {
                    self.at += 1;
                    return;
                }
                Token::Sign('}' | ')' | ']') => return,
                Token::Sign('{') if !import => {
                    self.at = self.behind(self.at);
                    return;
                }
                Token::Sign('{' | '(' | '[') => self.at = self.behind(self.at),
                Token::Word(word) => {
                    import |= word == "use";
                    item |= word == "impl" || word == "mod" || ITEMS.contains(&word.as_str());
                    self.at += 1;
                }
                Token::Colons | Token::Sign(_) => self.at += 1,
            }
        }
    }

    /// Behind the bracket that closes the one here.
    fn behind(&self, from: usize) -> usize {
        let mut depth = 0usize;
        for (at, token) in self.tokens.iter().enumerate().skip(from) {
            match token {
                Token::Sign('{' | '(' | '[') => depth += 1,
                Token::Sign('}' | ')' | ']') => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                return at + 1;
            }
        }
        self.tokens.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uses(text: &str) -> Vec<String> {
        let module = modules(text).swap_remove(0);
        module.uses.iter().map(|it| format!("{} as {}", it.path.join("::"), it.name)).collect()
    }

    #[test]
    fn imports_are_flattened() {
        assert_eq!(
            uses("use crate::{a::X, b::{self, Y as Z, *}, c}; use d as _;"),
            [
                "crate::a::X as X",
                "crate::b as b",
                "crate::b::Y as Z",
                "crate::b as *",
                "crate::c as c",
                "d as _"
            ]
        );
        assert_eq!(uses("use super::super::a; fn f() -> impl A + use<'_> {}"), ["super::super::a as a"]);
    }

    #[test]
    fn what_is_for_tests_is_left_out() {
        let text = "
            #[cfg(test)] use a::{b, c};
            #[cfg(test)] mod tests { use d::e; }
            #[cfg(test)] mod more;
            #[cfg(all(test, unix))] #[allow(x)] pub fn f(a: [u8; 2]) -> g::H { i::j() }
            struct S { #[cfg(test)] a: k::L, b: m::N }
            #[cfg(not(test))] use o::p;
            mod q;";
        let module = modules(text).swap_remove(0);
        assert_eq!(uses(text), ["o::p as p"]);
        assert_eq!(module.declared, ["q"]);
        assert_eq!(module.paths, [["m", "N"]]);
    }

    #[test]
    fn paths_items_and_inner_modules_are_found() {
        let text = "
            pub(in crate::x) fn f() { crate::a::b(); c.d::<u8>(); let _: Vec<super::e::F> = ::g::h(); }
            pub use a::B;
            mod inner { use super::f; const C: u8 = 0; }
            struct After;
            macro_rules! m { () => { $crate::n::o } }";
        let found = modules(text);
        let paths: Vec<String> = found[0].paths.iter().map(|path| path.join("::")).collect();
        assert_eq!(paths, ["crate::a::b", "super::e::F", "crate::n::o"]);
        assert!(found[0].uses[0].public && !found[0].uses[0].local);
        assert_eq!(
            (found[1].inner.as_slice(), &found[1].uses[0].path),
            (&["inner".into()][..], &vec!["super".to_string(), "f".into()])
        );
        let items: Vec<&str> = found[0].items.iter().map(String::as_str).collect();
        assert_eq!(items, ["After", "f", "m"]);
        assert!(found[1].items.contains("C"));
    }
}
