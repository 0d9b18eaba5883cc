use std::path::PathBuf;
use std::time::Duration;
use testkit::capture::{Moment, capture, tell};
use testkit::guest::{Target, Training, boot_target, run_file};
use testkit::layout;
use testkit::pipeline::Tool;

type Failure = Box<dyn std::error::Error>;

#[test]
fn explore() -> Result<(), Failure> {
    let tool = Tool { virtuoso: PathBuf::from(env!("CARGO_BIN_EXE_virtuoso")) };
    let directory = layout::run().join("limits");
    let list = "state:limits,yield,sleeper,cached,uncached,slowpipe,thread,helper,forked,mutex,names,several,port,rtc,mmio,alarmed,raised,inner,inner:deeper,stacks,stacks:handler,others,kernelmark,kernelmark:kernelbegin,waited,state:patched,names:patched,state:unpatched";
    let trainers = list.split(',').map(str::to_owned).collect();
    let begin = std::time::Instant::now();
    if std::env::var_os("BUSY").is_some() {
        let mut guest = boot_target(
            &Target { idlers: 20, busy: true, append: "state=limits".into(), ..Target::default() },
            Duration::from_secs(300),
        )?;
        capture(&mut guest, &run_file("limits-busy")?, Moment::UserMode)?;
        return Ok(());
    }
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory)?;
    let mut words: Vec<std::ffi::OsString> =
        vec!["record".into(), "--quiet".into(), "-o".into(), directory.clone().into(), "--".into()];
    words.extend(testkit::guest::training_argv(&Training { trainers, ..Training::default() })?);
    let done = tool.run(&words)?;
    println!("{:?} {} {}", begin.elapsed(), done.code, done.messages);
    if std::env::var_os("TRAIN").is_some() {
        return Ok(());
    }
    let mut guest = boot_target(
        &Target { idlers: 20, append: "state=limits".into(), ..Target::default() },
        Duration::from_secs(300),
    )?;
    capture(&mut guest, &run_file("limits-plain")?, Moment::Idle)?;
    println!("{:?}", begin.elapsed());
    tell(&mut guest, "state patched")?;
    capture(&mut guest, &run_file("limits-patched")?, Moment::Idle)?;
    println!("{:?}", begin.elapsed());
    tell(&mut guest, "state unpatched")?;
    tell(&mut guest, "load hold directory=/limits")?;
    capture(&mut guest, &run_file("limits-held")?, Moment::Idle)?;
    println!("{:?} {}", begin.elapsed(), guest.console());
    Ok(())
}
