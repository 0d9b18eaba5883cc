//! Texts with a thing on each line.

/// What the lines of a text are, and how many of them are none; empty ones do not count.
pub fn lines<'t, T>(text: &'t [u8], parse: impl Fn(&'t [u8]) -> Option<T>) -> (Vec<T>, usize) {
    let (mut found, mut strange) = (Vec::new(), 0);
    for line in text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        match parse(line) {
            Some(it) => found.push(it),
            None => strange += 1,
        }
    }
    (found, strange)
}
