//! `/proc/modules`: what the kernel has loaded.

use super::lines::lines;

/// A loaded module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Module<'t> {
    /// Its name.
    pub name: &'t [u8],
    /// Bytes of memory.
    pub size: u64,
    /// How often it is used.
    pub uses: Option<u64>,
    /// Modules that use it, each with a comma behind it, or a dash.
    pub users: &'t [u8],
    /// `Live`, `Loading` or `Unloading`.
    pub state: &'t [u8],
    /// Where it lies, for whom the kernel tells that.
    pub address: Option<u64>,
}

impl<'t> Module<'t> {
    /// Those of the file's text, and how many of its lines are none.
    #[must_use]
    pub fn all(text: &'t [u8]) -> (Vec<Self>, usize) {
        lines(text, Self::parse)
    }

    fn parse(line: &'t [u8]) -> Option<Self> {
        // A name may have any byte but the numbers behind it do not, so the line is read from
        // behind.
        let mut words = line.rsplitn(if line.ends_with(b")") { 7 } else { 6 }, |byte| *byte == b' ');
        if line.ends_with(b")") {
            words.next();
        }
        let address = std::str::from_utf8(words.next()?).ok()?.strip_prefix("0x")?;
        let (state, users) = (words.next()?, words.next()?);
        let number = |word: &[u8]| std::str::from_utf8(word).ok()?.parse().ok();
        let uses = number(words.next()?);
        let size = number(words.next()?)?;
        let name = words.next().filter(|name| !name.is_empty())?;
        let address = u64::from_str_radix(address, 16).ok()?;
        Some(Self { name, size, uses, users, state, address: Some(address).filter(|it| *it != 0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_module() {
        let text = b"ext4 983040 1 - Live 0xffffffffc0383000\njbd2 167936 1 ext4, Live 0x0\n\
                     odd\xff name 4096 - - Live 0xffffffffc0000000 (OE)\nno module\n 1 2 3 Live 0x1\n";
        let (found, strange) = Module::all(text);
        assert_eq!((found.len(), strange), (3, 2));
        assert_eq!((found[0].name, found[0].size, found[0].uses), (&b"ext4"[..], 983_040, Some(1)));
        assert_eq!((found[0].address, found[1].address), (Some(0xffff_ffff_c038_3000), None));
        assert_eq!((found[1].users, found[1].state), (&b"ext4,"[..], &b"Live"[..]));
        assert_eq!((found[2].name, found[2].uses), (&b"odd\xff name"[..], None));
    }
}
