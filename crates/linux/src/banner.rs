//! What a Linux kernel calls itself: the text of `/proc/version`, which lies in its memory too.
//!
//! `Linux version RELEASE (BUILDER) (COMPILER) #NUMBER WORDS` (init/version.c). Memory is somebody
//! else's: only such texts count whose characters are all printable and whose length is bounded.
//! Whether a text is the kernel's own or lies in a log of another boot the memory does not say for
//! certain; the kernel's ends with a line feed and a NUL, which logs do not.

use std::fmt;

/// How every banner begins.
const BEGIN: &[u8] = b"Linux version ";

/// The longest banner: the kernel's own buffers for its parts are smaller.
pub const MOST_BANNER: usize = 512;

/// The longest release (`UTS_RELEASE`, `__NEW_UTS_LEN`).
const MOST_RELEASE: usize = 64;

/// What a kernel calls itself, one line of printable ASCII.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Banner(String);

impl Banner {
    /// The banner at the beginning of these bytes, as far as the first that is not printable.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(BEGIN)?;
        let printable = |byte: &u8| matches!(byte, b' '..=b'~');
        let length = rest.iter().take(MOST_BANNER).take_while(|byte| printable(byte)).count();
        if BEGIN.len() + length > MOST_BANNER {
            return None;
        }
        let text = std::str::from_utf8(&bytes[..BEGIN.len() + length]).ok()?.trim_end();
        let banner = Self(text.to_owned());
        let release = banner.release();
        let number = banner.build().strip_prefix('#')?;
        let good = release.starts_with(|c: char| c.is_ascii_digit())
            && release.len() <= MOST_RELEASE
            && release.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+~-".contains(&byte))
            && text[BEGIN.len() + release.len()..].starts_with(" (")
            && number.starts_with(|c: char| c.is_ascii_digit());
        good.then_some(banner)
    }

    /// The whole line.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The release, as `uname -r` prints it: digits, letters and `._+~-`.
    #[must_use]
    pub fn release(&self) -> &str {
        self.0.get(BEGIN.len()..).and_then(|rest| rest.split(' ').next()).unwrap_or_default()
    }

    /// The build, as `uname -v` prints it: `#1 SMP ...`; empty if there is none.
    #[must_use]
    pub fn build(&self) -> &str {
        self.0.find(") #").map_or("", |at| &self.0[at + 2..])
    }
}

impl fmt::Display for Banner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Banners in a memory that is given piece by piece.
#[derive(Clone, Debug, Default)]
pub struct Banners {
    /// Each with whether a line feed and a NUL are behind it somewhere, and how often it was seen.
    found: Vec<(Banner, bool, u64)>,
    more: bool,
}

/// The most different banners that are kept.
const MOST_BANNERS: usize = 8;

impl Banners {
    /// Looks for banners that begin in `bytes` before `until`. What is behind that is there so that
    /// one which ends behind it is read to its end: [`MOST_BANNER`] bytes and two are enough.
    pub fn search(&mut self, bytes: &[u8], until: usize) {
        let until = until.min(bytes.len());
        let mut at = 0;
        while let Some(next) = bytes[at..until].iter().position(|&byte| byte == BEGIN[0]) {
            at += next;
            if let Some(banner) = Banner::parse(&bytes[at..]) {
                let own = bytes[at + banner.0.len()..].starts_with(b"\n\0");
                self.add(banner, own);
            }
            at += 1;
        }
    }

    fn add(&mut self, banner: Banner, own: bool) {
        if let Some((_, known, times)) = self.found.iter_mut().find(|(it, ..)| *it == banner) {
            (*known, *times) = (*known || own, *times + 1);
        } else if self.found.len() < MOST_BANNERS {
            self.found.push((banner, own, 1));
        } else {
            self.more = true;
        }
    }

    /// The different ones. Where some end as a kernel's own does, only those: the others are copies
    /// in logs, with whatever lies behind them. So is one that begins as another and goes on: the
    /// kernel's log moves a line by the two bytes of its level, and its last two stay behind it.
    #[must_use]
    pub fn all(&self) -> Vec<&Banner> {
        let any = self.found.iter().any(|(_, own, _)| *own);
        let goes_on = |it: &Banner| {
            let begins = |(other, own, _): &&(Banner, bool, u64)| {
                *own && it.0.len() > other.0.len() && it.0.starts_with(&other.0)
            };
            self.found.iter().any(|other| begins(&other))
        };
        let is_kernels = |(it, own, _): &&(Banner, bool, u64)| (*own || !any) && !goes_on(it);
        let mut all: Vec<_> = self.found.iter().filter(is_kernels).collect();
        all.sort_by_key(|(_, _, times)| std::cmp::Reverse(*times));
        all.into_iter().map(|(banner, ..)| banner).collect()
    }

    /// Whether there were more different ones than are kept.
    #[must_use]
    pub const fn more(&self) -> bool {
        self.more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBIAN: &str = "Linux version 6.1.0-57-amd64 (debian-kernel@lists.debian.org) (gcc-12 (Debian \
                          12.2.0-14+deb12u1) 12.2.0, GNU ld (GNU Binutils for Debian) 2.40) #1 SMP \
                          PREEMPT_DYNAMIC Debian 6.1.192-3 (2026-11-26)";

    #[test]
    fn a_banner_has_a_release_and_a_build() {
        let banner = Banner::parse(DEBIAN.as_bytes()).expect("a banner");
        assert_eq!(banner.text(), DEBIAN);
        assert_eq!(banner.release(), "6.1.0-57-amd64");
        assert_eq!(banner.build(), "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-3 (2026-11-26)");
        assert_eq!(Banner::parse(format!("{DEBIAN}\n").as_bytes()), Some(banner));
    }

    #[test]
    fn what_is_no_banner_is_not_taken_for_one() {
        let long = format!("Linux version 6.1 (a) (b) #1 {}", "x".repeat(MOST_BANNER));
        let release = format!("Linux version {} (a) (b) #1 SMP", "6".repeat(65));
        for text in [
            "Linux version %s (%s) #%s",
            "Linux version 6.1 (a) (gcc) # SMP",
            "Linux version 6.1 (a) (gcc)",
            "Linux version 6.1",
            "Linux version /etc/passwd (a) (b) #1",
            "Linux version 6.1;reboot (a) (b) #1",
            "Linux version ",
            &long,
            &release,
        ] {
            assert_eq!(Banner::parse(text.as_bytes()), None, "{text}");
        }
        let cut = Banner::parse(b"Linux version 6.1 (a) (b) #1 SMP\x1b[31m red").expect("up to the escape");
        assert_eq!(cut.text(), "Linux version 6.1 (a) (b) #1 SMP");
    }

    #[test]
    fn the_kernels_own_is_told_from_copies_of_it() {
        let mut memory = format!("junk{DEBIAN}6)\0LLinux version 5.10.0-1-amd64 (a) (b) #7 x\n\0");
        memory += &format!("kernel: {DEBIAN}\nmore{DEBIAN}\n\0{DEBIAN}6)\n\0");
        let mut banners = Banners::default();
        banners.search(memory.as_bytes(), memory.len());
        let texts: Vec<&str> = banners.all().iter().map(|it| it.text()).collect();
        assert_eq!(texts, [DEBIAN, "Linux version 5.10.0-1-amd64 (a) (b) #7 x"]);

        let mut banners = Banners::default();
        banners.search(b"Linux version 6.1 (a) (b) #1 SMP and a log", 1);
        assert_eq!(banners.all().len(), 1, "none ends as the kernel's does");
        banners.search(b"Linux version 6.1 (a) (b) #1 SMP\n\0", 0);
        assert_eq!(banners.all()[0].text(), "Linux version 6.1 (a) (b) #1 SMP and a log");

        let mut banners = Banners::default();
        let many: String = (0..20).map(|it| format!("Linux version 6.{it} (a) (b) #1\n\0")).collect();
        banners.search(many.as_bytes(), many.len());
        assert!(banners.all().len() == MOST_BANNERS && banners.more());
    }
}
