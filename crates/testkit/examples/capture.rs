//! Boots a target guest and captures it into `.cache/run/`.
//!
//! `cargo run -p virtuoso-testkit --example capture -- NAME [kernel=NAME] [idlers=N] [busy] [kaslr]
//! [append=WORD]... [qemu=WORD]...`. For trying things by hand; the tests call the library.

use std::time::{Duration, Instant};
use virtuoso_testkit::capture::{Moment, capture};
use virtuoso_testkit::guest::{Target, boot_target, run_file};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let name = words.next().ok_or(
        "usage: capture NAME [kernel=NAME] [idlers=N] [busy] [kaslr] [append=WORD]... [qemu=WORD]...",
    )?;
    let mut options = Target::default();
    for word in words {
        match word.split_once('=') {
            None if word == "busy" => options.busy = true,
            None if word == "kaslr" => options.kaslr = true,
            Some(("kernel", name)) => name.clone_into(&mut options.kernel),
            Some(("idlers", count)) => options.idlers = count.parse()?,
            Some(("append", more)) => options.append = format!("{} {more}", options.append),
            Some(("qemu", more)) => options.qemu.push(more.into()),
            _ => return Err(format!("do not know {word}").into()),
        }
    }
    let start = Instant::now();
    let mut guest = boot_target(&options, Duration::from_secs(300))?;
    println!("ready after {:.1} s", start.elapsed().as_secs_f64());
    let moment = if options.busy { Moment::UserMode } else { Moment::Any };
    let files = capture(&mut guest, &run_file(&name)?, moment)?;
    let truth = &files.truth;
    println!("captured after {:.1} s: {}", start.elapsed().as_secs_f64(), files.elf.display());
    println!("{} processes, {} modules, time {}", truth.processes.len(), truth.modules.len(), truth.time);
    Ok(())
}
