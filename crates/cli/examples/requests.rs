//! How long requests for a target's files take in one session: `requests FILES TARGET --packs DIR`;
//! the words from TARGET on are those of `virtuoso ls`.
//!
//! One JSON object: milliseconds of each of many requests for the same file, and what it takes to
//! read FILES of all files of the tree (attributes, and the content to its end), evenly chosen,
//! with as many threads as there are processors; each by the clock and in processor time, for on a
//! machine that others use, too, only that is ours. `cargo xtask files --speed` starts it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use filetree::{Error, Kind, MOST_READ, Tree};
use serde_json::json;

/// What a warm request asks for.
const WARM: &[u8] = b"/proc/1/maps";
/// How often.
const REQUESTS: usize = 500;
/// The most that is read of a file that has a size, and of one that has none, as in procfs, where
/// some come to no end: as the guest's own walk does (`guests/linux/walk.c`).
const MOST: [u64; 2] = [16 << 20, 1 << 20];

/// All regular files below a directory, `/proc/kmsg` and `/proc/kcore` left out: one waits, the
/// other is all memory.
fn files(tree: &Tree<'_>, path: &[u8], into: &mut Vec<Vec<u8>>) {
    let Ok(entries) = tree.entries(path) else { return };
    for entry in entries {
        let mut below = path.to_vec();
        if path != b"/" {
            below.push(b'/');
        }
        below.extend(&entry.name);
        match entry.kind {
            Kind::Directory => files(tree, &below, into),
            Kind::File if below != b"/proc/kmsg" && below != b"/proc/kcore" => into.push(below),
            _ => {}
        }
    }
}

/// Bytes of a file.
fn read(tree: &Tree<'_>, path: &[u8]) -> Result<u64, Error> {
    let most = MOST[usize::from(tree.attributes(path, false)?.size == 0)];
    let mut at = 0;
    while at < most {
        let content = tree.read(path, at, MOST_READ)?;
        at += content.bytes.len() as u64;
        if content.end {
            break;
        }
    }
    Ok(at)
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// Milliseconds that the processors gave this thread.
fn given() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds: Option<f64> = text.split(' ').next().and_then(|it| it.parse().ok());
    nanoseconds.unwrap_or(f64::NAN) / 1e6
}

/// How reading ended, all threads together.
#[derive(Default)]
struct Sums {
    bytes: u64,
    without_answer: usize,
    processor_ms: f64,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    let (wanted, words) = words.split_first().ok_or("usage: requests FILES TARGET --packs DIR")?;
    let wanted: usize = wanted.to_str().and_then(|it| it.parse().ok()).ok_or("FILES is no number")?;
    let report = virtuoso_cli::with_opened_tree(words, |tree| {
        let (mut warm, mut warm_processor) = (Vec::new(), Vec::new());
        for _ in 0..REQUESTS {
            let (begin, before) = (Instant::now(), given());
            let content = tree.read(WARM, 0, MOST_READ).map_err(|error| error.to_string())?;
            assert!(content.end && !content.bytes.is_empty());
            warm.push(milliseconds(begin));
            warm_processor.push(given() - before);
        }
        let (begin, mut all) = (Instant::now(), Vec::new());
        files(tree, b"/", &mut all);
        let listing = milliseconds(begin);
        let count = wanted.min(all.len());
        let chosen: Vec<&Vec<u8>> = (0..count).map(|at| &all[at * all.len() / count]).collect();
        let (begin, next, ended) = (Instant::now(), AtomicUsize::new(0), Mutex::new(Sums::default()));
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    let mut sums = Sums::default();
                    while let Some(path) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                        match read(tree, path) {
                            Ok(bytes) => sums.bytes += bytes,
                            Err(_) => sums.without_answer += 1,
                        }
                    }
                    if let Ok(mut ended) = ended.lock() {
                        ended.bytes += sums.bytes;
                        ended.without_answer += sums.without_answer;
                        ended.processor_ms += given();
                    }
                });
            }
        });
        let seconds = begin.elapsed().as_secs_f64();
        let ended = ended.into_inner().map_err(|error| error.to_string())?;
        Ok::<_, String>(json!({
            "warm_ms": warm, "warm_processor_ms": warm_processor, "listing_ms": listing,
            "all_files": all.len(), "files": count, "seconds": seconds,
            "processor_seconds": ended.processor_ms / 1000.0, "bytes": ended.bytes,
            "without_answer": ended.without_answer, "threads": threads,
        }))
    })??;
    println!("{report}");
    Ok(())
}
