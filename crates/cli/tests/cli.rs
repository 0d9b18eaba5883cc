//! The command as a user meets it: answers, and what happens on bad input. No test needs QEMU.

#![forbid(unsafe_code)]

mod support;

use support::{Folder, Slice, companion, companion_name, program, target, trace};

/// A folder with a program `p.prog` and a target.
fn ready(test: &str, slice: &Slice) -> Folder {
    let folder = Folder::new(test);
    folder.file("p.prog", program(slice).to_bytes().expect("it encodes"));
    target(&folder);
    folder
}

#[test]
fn a_slice_answers() {
    let folder = ready("slice", &Slice::Right);
    let ended = folder.virtuoso(&["run", "p.prog", "guest.raw", "--input", "n=41"]);
    assert_eq!((ended.out().as_str(), ended.code()), ("next = 42\n", 0));
    assert!(
        ended.err().contains("not verified") && ended.err().contains(&companion_name()),
        "{}",
        ended.err()
    );
    let ended = folder.virtuoso(&["run", "p.prog", "guest.raw", "--input", "n=41", "--slice"]);
    assert_eq!((ended.out().as_str(), ended.err().as_str(), ended.code()), ("next = 42\n", "", 0));
}

#[test]
fn a_run_says_what_its_outputs_depend_on() {
    let folder = ready("evidence", &Slice::Right);
    let run = |words: &[&str]| {
        folder.virtuoso(&[&["run", "p.prog", "guest.raw", "--input", "n=41", "--slice"], words].concat())
    };
    let ended = run(&["--explain"]);
    assert_eq!(ended.out(), "next = 42\nnext depends on the input n\n");
    let object: serde_json::Value = serde_json::from_str(&run(&["--explain", "--json"]).out()).expect("JSON");
    assert_eq!(object["depends_on"], serde_json::json!({"next": ["input n"]}));
    assert!(!run(&["--json"]).out().contains("depends_on"));
    let ended = folder.virtuoso(&["explain", "p.prog"]);
    assert!(ended.out().contains("  depends    next depends on the input n\n"), "{}", ended.out());
}

#[test]
fn both_ways_are_asked_by_default() {
    let folder = ready("both", &Slice::Right);
    folder.file(&companion_name(), companion());
    let json = |folder: &Folder| -> serde_json::Value {
        let ended = folder.virtuoso(&["run", "p.prog", "guest.raw", "--input", "n=41", "--json"]);
        serde_json::from_str(&ended.out()).expect("JSON")
    };
    let object = json(&folder);
    assert_eq!((&object["by"], &object["verified"]), (&"slice".into(), &true.into()));
    assert!(object["instructions"].is_number());
    let ended = folder.virtuoso(&["run", "p.prog", "guest.raw", "--input", "n=41"]);
    assert_eq!((ended.out().as_str(), ended.err().as_str(), ended.code()), ("next = 42\n", "", 0));

    folder.file("p.prog", program(&Slice::Wrong).to_bytes().expect("it encodes"));
    let ended = folder.virtuoso(&["run", "p.prog", "guest.raw", "--input", "n=1"]);
    assert_eq!((ended.out().as_str(), ended.code()), ("by slice:\nnext = 3\nby whole run:\nnext = 2\n", 21));
    let object = json(&folder);
    assert_eq!((&object["outcome"], &object["outputs"]), (&"differ".into(), &serde_json::Value::Null));
    assert_eq!(
        (&object["slice_outputs"]["next"], &object["whole_outputs"]["next"]),
        (&43.into(), &42.into())
    );

    folder.file("p.prog", program(&Slice::Unexplored).to_bytes().expect("it encodes"));
    let object = json(&folder);
    assert_eq!((&object["by"], &object["verified"]), (&"whole".into(), &false.into()));
}

#[test]
fn live_guests_that_are_none() {
    let folder = ready("live", &Slice::Right);
    folder
        .virtuoso(&["run", "p.prog", "qmp:gone", "--input", "n=1"])
        .fails(1, &["qmp:gone", "cannot connect", "-qmp"]);
    folder
        .virtuoso(&["watch", "p.prog", "guest.raw", "--input", "n=1"])
        .fails(1, &["guest.raw", "virtuoso run"]);
    let answers = |name: &str, says: &'static str| {
        let listener = std::os::unix::net::UnixListener::bind(folder.path(name)).expect("a socket");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            std::io::Write::write_all(&mut stream, says.as_bytes()).expect("it reads");
            stream.shutdown(std::net::Shutdown::Write).expect("it is open");
        });
    };
    answers("monitor", "QEMU 10.0.2 monitor - type 'help' for more information\n(qemu) ");
    folder
        .virtuoso(&["run", "p.prog", "qmp:monitor", "--input", "n=1"])
        .fails(1, &["it is no QMP monitor", "QEMU 10.0.2", "socket of -qmp"]);
    answers("ended", "{\"QMP\": {}}\n");
    folder
        .virtuoso(&["run", "p.prog", "qmp:ended", "--input", "n=1"])
        .fails(1, &["QEMU's monitor is gone at `qmp_capabilities`", "still runs"]);
    answers("silent", "");
    folder.virtuoso(&["target", "info", "qmp:silent"]).fails(1, &["qmp:silent", "closed the connection"]);
}

#[test]
fn without_virsh_a_domain_is_refused_with_two_ways_on() {
    let folder = ready("virsh", &Slice::Right);
    let hints = ["libvirt:web", "virsh, which is not installed", "libvirt-clients", "qmp:PATH"];
    folder.virtuoso_alone(&["run", "p.prog", "libvirt:web", "--input", "n=1"]).fails(1, &hints);
    folder.virtuoso_alone(&["target", "info", "libvirt:web"]).fails(1, &hints);
    folder.virtuoso_alone(&["watch", "--quiet", "p.prog", "libvirt:web", "--input", "n=1"]).fails(1, &hints);
    // A bare name is a file's first.
    folder.virtuoso_alone(&["target", "info", "web"]).fails(1, &["web", "check the path"]);
}

/// Every verb that `--help` has is in scripts and pages, users' verbs before makers'.
#[test]
fn completions_and_manual_pages_have_every_verb() {
    let folder = Folder::new("manual");
    let help = folder.virtuoso(&["--help"]).out();
    let verbs: Vec<&str> = help
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .collect();
    let at = |verb| verbs.iter().position(|it| *it == verb).expect("a verb");
    assert!(verbs.len() > 25 && at("exec") < at("train") && at("report") < at("build"), "{verbs:?}");
    folder.virtuoso(&["man", "pages"]).code();
    let pages: Vec<String> = std::fs::read_dir(folder.path("pages"))
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    for shell in ["bash", "zsh", "fish"] {
        let ended = folder.virtuoso(&["completions", shell]);
        assert_eq!(ended.code(), 0);
        assert!(verbs.iter().all(|verb| ended.out().contains(verb)), "{shell}");
    }
    assert!(verbs.iter().all(|verb| pages.contains(&format!("virtuoso-{verb}.1"))), "{pages:?}");
    let page = std::fs::read_to_string(folder.path("pages/virtuoso-report.1")).expect("a page");
    assert!(page.contains("Examples") && page.contains("no\\-hashes"), "{page}");
    folder.virtuoso(&["man", "pages/virtuoso.1"]).fails(1, &["pages/virtuoso.1"]);
    assert_eq!(folder.virtuoso(&["completions", "dos"]).code(), 2);
}

#[test]
fn json_has_all_fields() {
    let folder = ready("json", &Slice::Right);
    let ended = folder.virtuoso(&["run", "p.prog", "guest.raw", "--input", "n=0x10", "--json"]);
    let object: serde_json::Value = serde_json::from_str(&ended.out()).expect("JSON");
    assert_eq!(object["by"], "slice");
    assert_eq!(object["outcome"], "answer");
    assert_eq!(object["verified"], false);
    assert_eq!(object["slice_outcome"], "answer");
    assert_eq!(object["outputs"]["next"], 17);
    assert_eq!(object["program"], "next");
    assert_eq!(object["target"], "guest.raw");
    assert!(object["milliseconds"].is_number() && object["operations"].is_number());
    assert!(object["instructions"].is_null());
    assert_eq!(object["assertions"], serde_json::json!([]));
}

#[test]
fn the_whole_run_answers_where_the_slice_stops() {
    let folder = ready("fallback", &Slice::Unexplored);
    folder.file(&companion_name(), companion());
    let ended = folder.virtuoso(&["run", "p.prog", "guest.raw", "--input", "n=41"]);
    assert_eq!((ended.out().as_str(), ended.code()), ("next = 42\n", 0), "{}", ended.err());
    assert!(
        ended.err().contains("unexplored") && ended.err().contains("the answer is the whole run's"),
        "{}",
        ended.err()
    );
    let ended = folder.virtuoso(&["run", "p.prog", "guest.raw", "--input", "n=41", "--json", "--quiet"]);
    let object: serde_json::Value = serde_json::from_str(&ended.out()).expect("JSON");
    assert_eq!((&object["by"], &object["slice_outcome"]), (&"whole".into(), &"unexplored".into()));
    assert_eq!(ended.err(), "");
    folder
        .virtuoso(&["run", "p.prog", "guest.raw", "--input", "n=41", "--slice"])
        .fails(10, &["0x1234", "without --slice"]);
}

#[test]
fn verify_compares() {
    let folder = ready("verify", &Slice::Right);
    folder.file(&companion_name(), companion());
    let ended = folder.virtuoso(&["run", "p.prog", "guest.raw", "--input", "n=1", "--verify"]);
    assert_eq!((ended.out().as_str(), ended.code()), ("next = 2\n", 0), "{}", ended.err());
    assert!(ended.err().contains("agree"), "{}", ended.err());

    folder.file("p.prog", program(&Slice::Wrong).to_bytes().expect("it encodes"));
    let ended = folder.virtuoso(&["run", "p.prog", "guest.raw", "--input", "n=1", "--verify"]);
    assert_eq!(ended.code(), 21);
    assert_eq!(ended.out(), "by slice:\nnext = 3\nby whole run:\nnext = 2\n");
    assert!(ended.err().contains("differ in: next"), "{}", ended.err());

    folder.file("p.prog", program(&Slice::Unexplored).to_bytes().expect("it encodes"));
    let ended = folder.virtuoso(&["run", "p.prog", "guest.raw", "--input", "n=1", "--verify"]);
    assert_eq!((ended.out().as_str(), ended.code()), ("next = 2\n", 0), "{}", ended.err());
}

#[test]
fn a_missing_companion_is_named_when_it_is_needed() {
    let folder = ready("companion", &Slice::Unexplored);
    let run = ["run", "p.prog", "guest.raw", "--input", "n=1"];
    folder.virtuoso(&run).fails(1, &[&companion_name(), "unexplored", "--system"]);
    folder.file(&companion_name(), "something else");
    folder.virtuoso(&run).fails(1, &[&companion_name(), "no Virtuoso companion file"]);
    let mut other = ir::System::default();
    other.insert(0x1000, &[1; 4096]);
    folder.file("other.system", other.to_bytes().expect("it encodes"));
    let run = ["run", "p.prog", "guest.raw", "--input", "n=1", "--system", "other.system"];
    folder.virtuoso(&run).fails(1, &["other.system", "another training system", &companion_name()]);
}

#[test]
fn fuel_runs_out() {
    let folder = ready("fuel", &Slice::Right);
    folder
        .virtuoso(&["run", "p.prog", "guest.raw", "--input", "n=1", "--slice", "--fuel", "1"])
        .fails(11, &["fuel"]);
}

#[test]
fn another_kernel_is_told_apart() {
    let folder = ready("kernel", &Slice::Right);
    let mut program = program(&Slice::Right);
    program.code.push(ir::program::CodeRange { addr: 0x100, bytes: vec![0xcc; 64] });
    folder.file("p.prog", program.to_bytes().expect("it encodes"));
    folder
        .virtuoso(&["run", "p.prog", "guest.raw", "--input", "n=1"])
        .fails(20, &["guest.raw", "another kernel", "train on"]);
}

#[test]
fn bad_inputs_are_named() {
    let folder = ready("inputs", &Slice::Right);
    folder.virtuoso(&["run", "p.prog", "guest.raw"]).fails(1, &["input n is missing", "--input n="]);
    folder
        .virtuoso(&["run", "p.prog", "guest.raw", "--input", "pid=1"])
        .fails(1, &["no input named pid", "inputs: n"]);
    folder.virtuoso(&["run", "p.prog", "guest.raw", "--input", "n=ten"]).fails(1, &["n", "ten"]);
    folder
        .virtuoso(&["run", "p.prog", "guest.raw", "--input", "n=1", "--cpu", "3"])
        .fails(1, &["no processor 3", "--cpu 0"]);
    assert_eq!(folder.virtuoso(&["run", "p.prog", "guest.raw", "--input", "n"]).code(), 2);
    assert_eq!(folder.virtuoso(&["run", "p.prog", "guest.raw", "--slice", "--whole"]).code(), 2);
}

#[test]
fn bad_programs_are_told_apart() {
    let folder = ready("programs", &Slice::Right);
    let whole = program(&Slice::Right).to_bytes().expect("it encodes");
    folder.file("empty.prog", "");
    folder.file("cut.prog", &whole[..whole.len() - 5]);
    folder.file("head.prog", &whole[..20]);
    folder.file("foreign.prog", "#!/bin/sh\n");
    let mut changed = whole;
    changed[8] = 99;
    folder.file("version.prog", &changed);
    let cases = [
        ("empty.prog", "empty"),
        ("cut.prog", "damaged"),
        ("head.prog", "damaged"),
        ("foreign.prog", "no Virtuoso program file"),
        ("version.prog", "version 99"),
        ("missing.prog", "check the path"),
        (".", "directory"),
    ];
    for (name, says) in cases {
        folder.virtuoso(&["run", name, "guest.raw"]).fails(1, &[name, says]);
        folder.virtuoso(&["explain", name]).fails(1, &[name, says]);
    }
}

#[test]
fn bad_targets_are_told_apart() {
    let folder = ready("targets", &Slice::Right);
    folder.file("empty.elf", "");
    folder.file("cut.elf", b"\x7fELF\x02\x01\x01");
    folder.file("foreign.elf", "hello");
    for (name, says) in [
        ("empty.elf", "empty"),
        ("cut.elf", "broken ELF"),
        ("foreign.elf", "no raw RAM"),
        ("missing.elf", "check the path"),
        (".", "directory"),
    ] {
        folder.virtuoso(&["run", "p.prog", name, "--input", "n=1"]).fails(1, &[name, says]);
        folder.virtuoso(&["target", "info", name]).fails(1, &[name, says]);
    }
    // What has no processors is opened, and they are looked for by the program's kernel code.
    folder.file("bare.raw", [7; 8192]);
    folder
        .virtuoso(&["run", "p.prog", "bare.raw", "--input", "n=1"])
        .fails(1, &["bare.raw", "64-bit guests only", "--cpu-file"]);
    let info = folder.virtuoso(&["target", "info", "bare.raw"]);
    assert!(info.code() == 0 && info.out().contains("CPUs  not in the file"), "{}", info.out());
}

#[test]
fn packs_that_are_not_there_are_said_to_be() {
    let folder = ready("packs", &Slice::Right);
    for verb in ["ps", "lsmod", "time"] {
        folder
            .virtuoso(&[verb, "guest.raw", "--packs", "nowhere"])
            .fails(1, &["nowhere", "a directory of packs"]);
        folder.virtuoso(&[verb, "guest.raw", "--packs", "."]).fails(1, &[".prog", "--packs"]);
    }
    // By its kernel code it fits; it is no program for the time.
    let mut gettime = program(&Slice::Right);
    gettime.code.push(ir::program::CodeRange { addr: 0x100, bytes: vec![0; 64] });
    folder.file("gettime.prog", gettime.to_bytes().expect("it encodes"));
    folder.virtuoso(&["time", "guest.raw", "--packs", "."]).fails(1, &["gettime.prog"]);
}

#[test]
fn what_training_cannot_begin_with_is_named_and_no_guest_is_booted() {
    let folder = ready("train", &Slice::Right);
    let me = env!("CARGO_BIN_EXE_virtuoso");
    let train = |words: &[&str]| folder.virtuoso(&[&["train", "-o", "pack"], words].concat());
    assert_eq!((train(&[me]).code(), train(&[]).code()), (2, 2));
    // Without trainers the built-in ones are recorded.
    train(&["--kernel", "nowhere"]).fails(1, &["nowhere", "check the path"]);
    train(&["--kernel", "p.prog", "--modules", "."]).fails(1, &["no module", "lib/modules"]);
    train(&["--kernel", "nowhere", me]).fails(1, &["nowhere", "check the path"]);
    train(&["--kernel", "p.prog", "p.prog"]).fails(1, &["p.prog", "no ELF file"]);
    train(&["--kernel", "p.prog", "--modules", ".", me]).fails(1, &["no module", "lib/modules"]);
    train(&["--kernel", "p.prog", "--load", "ext4", me]).fails(1, &["--modules"]);
    let ended = train(&["--kernel", "p.prog", "--search", "long", me]);
    assert!(ended.code() == 2 && ended.err().contains("--search"), "{}", ended.err());
    assert!(!folder.path("pack").exists());
    std::fs::create_dir(folder.path("pack")).expect("a folder");
    folder.file("pack/old.prog", "old");
    train(&["--kernel", "p.prog", me]).fails(1, &["pack", "not empty"]);
}

#[test]
fn bad_traces_are_told_apart_and_nothing_is_written() {
    let folder = Folder::new("traces");
    let whole = trace(7);
    folder.file("empty.trace", "");
    folder.file("cut.trace", &whole[..whole.len() - 5]);
    folder.file("head.trace", &whole[..10]);
    folder.file("foreign.trace", "hello");
    let before = folder.names();
    for (name, says) in [
        ("empty.trace", "empty"),
        ("cut.trace", "truncated"),
        ("head.trace", "truncated"),
        ("foreign.trace", "not a Virtuoso trace"),
        ("missing.trace", "check the path"),
        (".", "directory"),
    ] {
        for verb in ["info", "dump", "check"] {
            folder.virtuoso(&["trace", verb, name]).fails(1, &[name, says]);
        }
        folder.virtuoso(&["build", name, "-o", "out.prog"]).fails(1, &[name, says]);
    }
    assert_eq!(folder.names(), before);
}

#[test]
fn traces_are_shown_and_checked() {
    let folder = Folder::new("trace");
    folder.file("good.trace", trace(7));
    folder.file("bad.trace", trace(8));
    let info = folder.virtuoso(&["trace", "info", "good.trace"]);
    assert!(info.out().contains("next:u32") && info.out().contains("1 executed"), "{}", info.out());
    let dump = folder.virtuoso(&["trace", "dump", "good.trace"]);
    assert!(
        dump.out().contains("mov %eax,0x2004") && dump.out().contains("store 4 0x2004"),
        "{}",
        dump.out()
    );
    let check = folder.virtuoso(&["trace", "check", "good.trace"]);
    assert!(check.out().contains("1 of 1 instructions replayed (100 %)"), "{}", check.out());
    assert_eq!(check.code(), 0);
    let check = folder.virtuoso(&["trace", "check", "good.trace", "bad.trace"]);
    assert!(check.out().contains("0 of 1 instructions replayed (0 %)"), "{}", check.out());
    assert!(check.out().contains("a3 04 20 00 00  mov %eax,0x2004"), "{}", check.out());
    assert_eq!(check.code(), 22);
}

#[test]
fn outputs_never_replace_inputs() {
    let folder = Folder::new("clobber");
    let path = folder.file("a.trace", trace(7));
    folder.virtuoso(&["build", "a.trace", "-o", "./a.trace"]).fails(1, &["a.trace", "overwritten"]);
    assert_eq!(std::fs::read(path).expect("it is there"), trace(7));
    folder
        .virtuoso(&["build", "a.trace", "-o", "no/such/folder/p.prog", "--allow-constant"])
        .fails(1, &["folder"]);
    assert_eq!(folder.names(), ["a.trace"]);
}

#[test]
fn foreign_executables_and_symbols_are_refused() {
    let folder = Folder::new("elf");
    folder.file("a.trace", trace(7));
    folder.file("text", "hello\n");
    folder.file("cut", b"\x7fELF\x02\x01\x01");
    folder
        .virtuoso(&["build", "a.trace", "-o", "p.prog", "--elf", "text"])
        .fails(1, &["text", "no ELF file"]);
    folder
        .virtuoso(&["build", "a.trace", "-o", "p.prog", "--exe", "cut"])
        .fails(1, &["cut", "broken executable"]);
    folder
        .virtuoso(&["build", "a.trace", "-o", "p.prog", "--elf", env!("CARGO_BIN_EXE_virtuoso")])
        .fails(1, &["begin mark"]);
    folder
        .virtuoso(&["build", "a.trace", "-o", "p.prog", "--symbols", "text"])
        .fails(1, &["text", "names no functions"]);
    assert_eq!(folder.names(), ["a.trace", "cut", "text"]);
}

#[test]
fn programs_are_explained() {
    let folder = ready("explain", &Slice::Unexplored);
    let ended = folder.virtuoso(&["explain", "p.prog"]);
    assert!(
        ended.out().contains("program next (32-bit)") && ended.out().contains("start"),
        "{}",
        ended.out()
    );
    let ended = folder.virtuoso(&["explain", "p.prog", "--function", "start"]);
    assert!(ended.out().contains("unexplored 0x1234") && ended.out().contains("add.32"), "{}", ended.out());
    folder.virtuoso(&["explain", "p.prog", "--function", "0x9"]).fails(1, &["no function 0x9"]);
    let ended = folder.virtuoso(&["explain", "p.prog", "--json", "--full"]);
    let object: serde_json::Value = serde_json::from_str(&ended.out()).expect("JSON");
    assert_eq!(object["functions"][0]["counts"]["unexplored"], 1);
    let ended = folder.virtuoso(&["explain", "p.prog", "--text"]);
    let parsed = ir::text::parse_program(&ended.out(), machine::Reg::NAMES).expect("it parses");
    assert_eq!(parsed, program(&Slice::Unexplored));
}

#[test]
fn a_closed_pipe_is_quiet() {
    let folder = Folder::new("pipe");
    let mut long = program(&Slice::Right);
    // More than a pipe holds, so that the command writes after its reader is gone.
    let block = long.functions[0].blocks[0].clone();
    long.functions[0].blocks.extend(std::iter::repeat_n(block, 5000));
    folder.file("long.prog", long.to_bytes().expect("it encodes"));
    let ended = folder.virtuoso_unread(&["explain", "long.prog", "--full"]);
    assert_eq!((ended.code(), ended.err().as_str()), (141, ""));
}

#[test]
fn recording_needs_a_qemu() {
    let folder = Folder::new("record");
    folder.virtuoso(&["record", "--", "./no-such-qemu"]).fails(32, &["no-such-qemu", "install"]);
    folder.virtuoso(&["record", "--", "/bin/true"]).fails(32, &["/bin/true", "not a QEMU"]);
    assert_eq!(folder.virtuoso(&["record"]).code(), 2);
    assert!(folder.names().is_empty());
}

#[test]
fn processor_state_round_trips() {
    let folder = ready("cpus", &Slice::Right);
    let ended = folder.virtuoso(&["target", "info", "guest.raw", "--json"]);
    folder.file("cpus.json", ended.out());
    let again = folder.virtuoso(&["target", "info", "guest.raw", "--cpu-file", "cpus.json", "--json"]);
    assert_eq!(again.out(), ended.out());
    let ended = folder.virtuoso(&["target", "info", "guest.raw"]);
    assert!(
        ended.out().contains("raw, 8192 bytes of RAM") && ended.out().contains("paging off"),
        "{}",
        ended.out()
    );
}

#[test]
fn every_verb_has_help_with_examples() {
    let folder = Folder::new("help");
    let verbs: &[&[&str]] = &[
        &["record"],
        &["build"],
        &["train"],
        &["run"],
        &["explain"],
        &["trace", "info"],
        &["trace", "dump"],
        &["trace", "check"],
        &["target", "info"],
    ];
    for verb in verbs {
        let ended = folder.virtuoso(&[verb, &["--help"][..]].concat());
        assert!(ended.code() == 0 && ended.out().contains("Examples:"), "{verb:?}: {}", ended.out());
    }
    assert!(folder.virtuoso(&["--help"]).out().contains("Exit codes:"));
}
