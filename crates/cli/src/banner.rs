//! What a target says that it runs: the banners of Linux kernels in its memory, for messages and
//! for `train --for`.
//!
//! It is a hint, never evidence: whether a pack fits is decided by kernel code. The memory is a
//! guest's, so the search is bounded by time and what is found by `linux`'s rules.

use std::time::{Duration, Instant};

use linux::{Banner, Banners, MOST_BANNER};
use machine::{PhysAddr, Target};

use crate::context::Context;
use crate::live::{Name, Opened};
use crate::target::TargetArgs;

/// How much memory is looked at in one piece.
const PIECE: usize = 1 << 20;

/// What must be behind the begin of a banner for it to be read to its end.
const BEHIND: usize = MOST_BANNER + 2;

/// How long a dump may be searched.
pub const OF_A_DUMP: Duration = Duration::from_secs(20);

/// How long a live guest may be, which stands still meanwhile.
pub const OF_A_GUEST: Duration = Duration::from_secs(1);

/// What a search found.
pub struct Found {
    /// The different banners, the likeliest first.
    pub banners: Vec<Banner>,
    /// Whether all of memory was looked at, and all that was found is here.
    pub complete: bool,
}

/// Searches a target's memory for so long at most.
#[must_use]
pub fn search(target: &Target, limit: Duration) -> Found {
    let (begin, mut found, mut complete) = (Instant::now(), Banners::default(), true);
    'ranges: for range in target.mem.ranges() {
        let mut piece: Vec<u8> = Vec::with_capacity(PIECE + 4096);
        let mut at = range.start.0;
        while at < range.end.0 {
            match target.mem.page(PhysAddr(at)) {
                Ok(page) => piece.extend_from_slice(&page[(at % 4096) as usize..]),
                // Nothing goes on behind a page that is not there.
                Err(_) => {
                    found.search(&piece, piece.len());
                    piece.clear();
                }
            }
            at = at - at % 4096 + 4096;
            if piece.len() >= PIECE {
                let until = piece.len() - BEHIND;
                found.search(&piece, until);
                piece.drain(..until);
                if begin.elapsed() > limit {
                    complete = false;
                    break 'ranges;
                }
            }
        }
        found.search(&piece, piece.len());
    }
    let banners = found.all().into_iter().cloned().collect();
    Found { banners, complete: complete && !found.more() }
}

impl Found {
    /// What to say where no pack fits: what the target runs, and which command makes a pack of it.
    #[must_use]
    pub fn advice(&self, target: &str) -> String {
        let rest = if self.complete { "" } else { " (not all of it was searched)" };
        match &self.banners[..] {
            [] => format!("no banner of a Linux kernel was found in its memory{rest}"),
            [one] => format!("it runs {one}{rest}\nmake a pack of it: virtuoso train --for {target}"),
            several => {
                let lines: Vec<String> = several.iter().map(|it| format!("\n  {it}")).collect();
                format!(
                    "its memory has the banners of several kernels{rest}, of which one is its own:{}\nmake a \
                     pack of it: virtuoso train --for {target} --deb FILE, with that one's package",
                    lines.concat()
                )
            }
        }
    }
}

/// What an opened target runs, as the end of a message.
#[must_use]
pub fn of_opened(opened: &Opened) -> String {
    let path = &opened.path;
    let limit = if Name::parse(path).is_some() { OF_A_GUEST } else { OF_A_DUMP };
    search(opened, limit).advice(&path.display().to_string())
}

/// What a dump runs, as the end of a message where nobody has opened it; `None` if that cannot be
/// told. A live guest is not paused for it.
#[must_use]
pub fn of_dump(path: &std::path::Path, how: &TargetArgs) -> Option<String> {
    if Name::parse(path).is_some() || !path.is_file() {
        return None;
    }
    let opened = how.open_without(path, Context::silent()).ok()?;
    let found = search(&opened, OF_A_DUMP);
    (!found.banners.is_empty()).then(|| found.advice(&path.display().to_string()))
}

#[cfg(test)]
mod tests {
    use machine::TargetOptions;

    use super::*;

    /// A target whose RAM is this.
    fn target(name: &str, ram: &[u8]) -> Opened {
        let path = std::env::temp_dir().join(format!("virtuoso-banner-{name}-{}.raw", std::process::id()));
        std::fs::write(&path, ram).expect("a file");
        let options = TargetOptions { without_cpus: true, ..TargetOptions::default() };
        let target = Target::open(&path, &options).expect("a target");
        std::fs::remove_file(&path).expect("it is mapped");
        Opened::dump(target)
    }

    #[test]
    fn banners_are_found_wherever_they_lie() {
        let banner = "Linux version 6.1.0-57-amd64 (d) (gcc) #1 SMP Debian 6.1.192-3 (2026-11-26)\n\0";
        // Across a page, across a piece, and at the very end.
        for at in [4096 - 20, PIECE - 7, PIECE + 4096 - BEHIND - 1, 2 * PIECE - banner.len()] {
            let mut ram = vec![0x4c; 2 * PIECE];
            ram[at..at + banner.len()].copy_from_slice(banner.as_bytes());
            let opened = target("one", &ram);
            let found = search(&opened, OF_A_DUMP);
            assert!(found.banners.len() == 1 && found.complete, "{at}: {:?}", found.banners);
            let says = of_opened(&opened);
            assert!(says.starts_with("it runs Linux version 6.1.0-57-amd64 (d)"), "{says}");
            assert!(says.contains("\nmake a pack of it: virtuoso train --for /"), "{says}");
        }
    }

    #[test]
    fn a_search_is_bounded_and_names_all_that_differ() {
        let mut ram = vec![0; 4 * PIECE];
        for (at, text) in
            [(9000, "Linux version 5.1 (a) (b) #1 x\n\0"), (99, "Linux version 6.1 (a) (b) #2 y\n\0")]
        {
            ram[at..at + text.len()].copy_from_slice(text.as_bytes());
        }
        let opened = target("two", &ram);
        let says = of_opened(&opened);
        assert!(says.contains("\n  Linux version 5.1 (a) (b) #1 x") && says.contains("#2 y"), "{says}");
        assert!(says.contains("--deb FILE"), "{says}");
        assert!(!search(&opened, Duration::ZERO).complete);
        let says = of_opened(&target("none", &[0; 8192]));
        assert_eq!(says, "no banner of a Linux kernel was found in its memory");
    }
}
