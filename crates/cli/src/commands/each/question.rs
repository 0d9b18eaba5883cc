//! What is asked: the words of a verb, and where among them the target goes.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::Command;
use engine::Text;
use serde_json::{Value, json};

use crate::failure::Failure;

/// Where the target goes.
const PLACE: &str = "{}";

/// A verb and its words.
#[derive(Debug)]
pub struct Question {
    words: Vec<OsString>,
    /// Whether the verb prints JSON: what it prints of a guest's file may only look like it.
    pub is_json: bool,
}

/// A word of the command line as JSON: text, or bytes if it is none.
pub fn named(word: &OsStr) -> Value {
    json!(Text::of_path(Path::new(word)))
}

impl Question {
    /// These words, of one of the command's verbs; they get `{}` and `--json` where they lack them
    /// and the verb has them.
    ///
    /// # Errors
    /// It is no verb that asks a target.
    pub fn new(words: &[OsString], all: &Command) -> Result<Self, Failure> {
        let verb = words.first().and_then(|verb| verb.to_str()).unwrap_or_default();
        let known = all.find_subcommand(verb).filter(|it| !it.is_hide_set());
        let known = known.ok_or_else(|| Failure::input(format!("{verb} is no verb; see virtuoso --help")))?;
        let positions: Vec<&str> = known.get_positionals().map(|it| it.get_id().as_str()).collect();
        let Some(at) = positions.iter().position(|id| *id == "target") else {
            return Err(Failure::input(format!("{verb} asks no target, so it cannot ask each")));
        };
        let mut words = words.to_vec();
        let is_json = known.get_arguments().any(|it| it.get_id() == "json");
        if is_json && !words.iter().any(|it| it == "--json") {
            words.insert(1, "--json".into());
        }
        if !words.iter().any(|it| it == PLACE) {
            // Before all others, or as the last: what stands between, options may have.
            match at {
                0 => words.insert(1, PLACE.into()),
                _ => words.push(PLACE.into()),
            }
        }
        Ok(Self { words, is_json })
    }

    /// The words for a target.
    pub fn about(&self, target: &OsStr) -> impl Iterator<Item = OsString> {
        self.words.iter().map(move |word| if word == PLACE { target.to_owned() } else { word.clone() })
    }

    /// The words, by which a question is known.
    pub fn words(&self) -> Vec<Value> {
        self.words.iter().map(|word| named(word)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn asked(words: &[&str]) -> Result<Vec<String>, String> {
        let words: Vec<OsString> = words.iter().map(Into::into).collect();
        let question = Question::new(&words, &crate::commands::Cli::command());
        let question = question.map_err(|error| error.to_string())?;
        Ok(question.about(OsStr::new("T")).map(|word| word.into_string().unwrap()).collect())
    }

    #[test]
    fn the_target_goes_where_the_verb_wants_it() {
        assert_eq!(asked(&["ps"]).unwrap(), ["ps", "T", "--json"]);
        assert_eq!(asked(&["ps", "--json"]).unwrap(), ["ps", "T", "--json"]);
        assert_eq!(asked(&["cat", "/etc/passwd"]).unwrap(), ["cat", "T", "/etc/passwd"]);
        assert_eq!(asked(&["run", "p.prog"]).unwrap(), ["run", "--json", "p.prog", "T"]);
        assert_eq!(asked(&["run", "{}", "--slice"]).unwrap(), ["run", "--json", "T", "--slice"]);
        assert!(asked(&["explain", "p.prog"]).unwrap_err().contains("asks no target"));
        assert!(asked(&["each"]).unwrap_err().contains("asks no target"));
        assert!(asked(&["nothing"]).unwrap_err().contains("no verb"));
    }
}
