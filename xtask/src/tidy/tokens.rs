//! Rust source as words and signs, without comments, strings, characters and lifetimes.
//!
//! As much of the language as it takes to find imports and paths. It knows no grammar and refuses
//! nothing: what does not compile, the compiler says.

/// A piece of source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Token {
    /// An identifier, a keyword or a number.
    Word(String),
    /// `::`.
    Colons,
    /// Any other character.
    Sign(char),
}

impl Token {
    /// The word it is, if it is one.
    pub fn word(&self) -> Option<&str> {
        match self {
            Token::Word(word) => Some(word),
            Token::Colons | Token::Sign(_) => None,
        }
    }

    /// Whether it is this word.
    pub fn is(&self, word: &str) -> bool {
        self.word() == Some(word)
    }

    /// Whether it is this sign.
    pub fn is_sign(&self, sign: char) -> bool {
        *self == Token::Sign(sign)
    }
}

/// The tokens of a file.
pub fn tokens(text: &str) -> Vec<Token> {
    let mut lexer = Lexer { text: text.chars().collect(), at: 0 };
    std::iter::from_fn(|| lexer.next()).collect()
}

struct Lexer {
    text: Vec<char>,
    at: usize,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.text.get(self.at + ahead).copied()
    }

    fn next(&mut self) -> Option<Token> {
        loop {
            match (self.peek(0)?, self.peek(1)) {
                ('/', Some('/')) => self.skip_to('\n'),
                ('/', Some('*')) => self.skip_comment(),
                ('"', _) => self.skip_string(),
                ('\'', _) => self.skip_character(),
                (':', Some(':')) => {
                    self.at += 2;
                    return Some(Token::Colons);
                }
                (first, _) if is_word(first) => {
                    let word = self.take_word();
                    if !self.skip_prefixed(&word) {
                        return Some(Token::Word(word));
                    }
                }
                (first, _) => {
                    self.at += 1;
                    if !first.is_whitespace() {
                        return Some(Token::Sign(first));
                    }
                }
            }
        }
    }

    fn take_word(&mut self) -> String {
        let from = self.at;
        while self.peek(0).is_some_and(is_word) {
            self.at += 1;
        }
        self.text[from..self.at].iter().collect()
    }

    /// Skips the literal that begins with this word; of `r#name` only the sign, so that the name
    /// comes next.
    fn skip_prefixed(&mut self, word: &str) -> bool {
        match (word, self.peek(0)) {
            ("b" | "c", Some('"')) => self.skip_string(),
            ("b", Some('\'')) => self.skip_character(),
            ("r" | "br" | "cr", Some('"' | '#')) => {
                let hashes = (0..).take_while(|&ahead| self.peek(ahead) == Some('#')).count();
                self.at += hashes;
                if self.peek(0) == Some('"') {
                    self.at += 1;
                    while self.at < self.text.len()
                        && !(self.peek(0) == Some('"')
                            && (1..=hashes).all(|ahead| self.peek(ahead) == Some('#')))
                    {
                        self.at += 1;
                    }
                    self.at += 1 + hashes;
                }
            }
            _ => return false,
        }
        true
    }

    fn skip_to(&mut self, end: char) {
        while self.peek(0).is_some_and(|it| it != end) {
            self.at += 1;
        }
    }

    fn skip_comment(&mut self) {
        let mut depth = 0;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some('/'), Some('*')) => (depth, self.at) = (depth + 1, self.at + 2),
                (Some('*'), Some('/')) => (depth, self.at) = (depth - 1, self.at + 2),
                (Some(_), _) => self.at += 1,
                (None, _) => return,
            }
            if depth == 0 {
                return;
            }
        }
    }

    fn skip_string(&mut self) {
        self.at += 1;
        while let Some(it) = self.peek(0) {
            self.at += if it == '\\' { 2 } else { 1 };
            if it == '"' {
                return;
            }
        }
    }

    /// A character, or a lifetime or label, whose name says nothing either.
    fn skip_character(&mut self) {
        self.at += 1;
        match (self.peek(0), self.peek(1)) {
            (Some('\\'), _) => {
                self.at += 2;
                self.skip_to('\'');
                self.at += 1;
            }
            (Some(_), Some('\'')) => self.at += 2,
            _ => {
                self.take_word();
            }
        }
    }
}

fn is_word(it: char) -> bool {
    it.is_alphanumeric() || it == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let texts = tokens(text).into_iter().map(|token| match token {
            Token::Word(word) => word,
            Token::Colons => "::".into(),
            Token::Sign(sign) => sign.into(),
        });
        texts.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_and_literals_are_left_out() {
        assert_eq!(shown("a // b\n/* c /* d */ e */ /// f\n g"), "a g");
        assert_eq!(shown(r#"a("b \" c", b"d", 'e', '\'', b'\n', '\u{41}')"#), "a ( , , , , , )");
        assert_eq!(shown(r###"a r"\" b r##"c "# d"## e"###), "a b e");
        assert_eq!(shown("r#type::x"), "type :: x");
    }

    #[test]
    fn lifetimes_are_no_characters() {
        assert_eq!(shown("fn f<'a>(x: &'a str, y: &'static u8) { 'b: loop {} }"), {
            "fn f < > ( x : & str , y : & u8 ) { : loop { } }"
        });
        assert_eq!(shown("[' ', 'x']"), "[ , ]");
    }
}
