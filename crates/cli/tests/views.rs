//! Tables and pairs of views: what they print where a row has no answer, where a list is full or
//! cannot be all, and where the guest's own code fails.
//!
//! The packs are written down here: programs whose answers are constants, over memory that is zero
//! but for some kernel code, by which packs are recognised.

#![forbid(unsafe_code)]

#[allow(dead_code, reason = "shared with other tests, which need more of it")]
mod support;

use serde_json::{Value, json};
use support::{Ended, Folder};

/// Where the target has its kernel's code, and what that is.
const KERNEL_AT: usize = 0x100;
const KERNEL: [u8; 32] = [0x90; 32];

/// Raw RAM with paging off, in which the kernel's code lies.
fn target(folder: &Folder) {
    support::target(folder);
    let mut ram = [0; 8192];
    ram[KERNEL_AT..][..KERNEL.len()].copy_from_slice(&KERNEL);
    folder.file("guest.raw", ram);
}

/// A 32-bit program with these lines in its header and these operations. It has a page at 0x2000
/// and what `rows` puts at 0x3000.
fn put(folder: &Folder, name: &str, header: &str, ops: &str, rows: &str) {
    put_of(folder, name, header, ops, rows, &KERNEL);
}

/// The same, made in a system with this kernel code.
fn put_of(folder: &Folder, name: &str, header: &str, ops: &str, rows: &str, kernel: &[u8]) {
    let code = if kernel.is_empty() {
        String::new()
    } else {
        format!("code {KERNEL_AT:#x} bytes {} {{\n  0x0: {}\n}}\n", kernel.len(), hex(kernel))
    };
    let text = format!(
        "program \"{name}\"\nbits 32\nbegin 0x1000\n{header}\npage 0x2000 zero\n\
         page 0x3000 bytes 4096 {{\n{rows}}}\n{code}\
         function f0 0x1000 \"main\" {{\nb0 @0x1000:\n{ops}\n end\n}}\n"
    );
    let program = ir::text::parse_program(&text, machine::Reg::NAMES).expect("it parses");
    folder.file(&format!("{name}.prog"), program.to_bytes().expect("it encodes"));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A program whose list `output` of at most `max` numbers is this, and whose return code is `rc`.
fn list(folder: &Folder, name: &str, output: &str, numbers: &[u32], max: u32, rc: i32) {
    list_of(folder, name, output, (numbers, max, rc), &KERNEL);
}

/// The same, made in a system with this kernel code.
fn list_of(folder: &Folder, name: &str, output: &str, (numbers, max, rc): (&[u32], u32, i32), kernel: &[u8]) {
    let header = format!(
        "output \"rc\" i32 @0x2000\noutput \"count\" u32 @0x2004\n\
         output \"{output}\" u32[field \"count\" max {max}] @0x2010"
    );
    let mut ops = format!(" store.32 0x2000, {:#x}\n store.32 0x2004, {}", rc as u32, numbers.len());
    for (at, number) in numbers.iter().enumerate() {
        ops += &format!("\n store.32 {:#x}, {number}", 0x2010 + 4 * at);
    }
    put_of(folder, name, &header, &ops, "", kernel);
}

/// `getpsfile` or `getdrvfile`: for each number its return code and text, of eight bytes at most.
/// A number of which the table has no room leads to memory that is not there.
fn texts(folder: &Folder, name: &str, (input, output): (&str, &str), rows: &[(u32, i32, &str)]) {
    let header = format!(
        "input \"{input}\" u32 @0x2000\noutput \"rc\" i32 @0x2004\noutput \"{output}\" char[8] @0x2010"
    );
    let ops = " t0 = load.32 0x2000\n t1 = shl.32 t0, 4\n t2 = add.32 t1, 0x3000\n t3 = load.32 t2\n \
               store.32 0x2004, t3\n t4 = add.32 t2, 8\n t5 = load.32 t4\n store.32 0x2010, t5\n \
               t6 = add.32 t4, 4\n t7 = load.32 t6\n store.32 0x2014, t7";
    let rows = rows.iter().map(|(number, rc, text)| {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&rc.to_le_bytes());
        bytes[8..8 + text.len()].copy_from_slice(text.as_bytes());
        format!("  {:#x}: {}\n", number * 16, hex(&bytes))
    });
    put(folder, name, &header, ops, &rows.collect::<String>());
}

/// A folder with a target and two processes, of which the second has no executable.
fn pack(test: &str) -> Folder {
    let folder = Folder::new(test);
    target(&folder);
    list(&folder, "pslist", "pids", &[1, 2], 8, 0);
    texts(&folder, "getpsfile", ("pid", "path"), &[(1, 0, "/init"), (2, -2, "")]);
    folder
}

fn ask(folder: &Folder, verb: &str) -> Ended {
    folder.virtuoso(&[verb, "guest.raw", "--packs", "."])
}

fn json(folder: &Folder, verb: &str) -> Value {
    let ended = folder.virtuoso(&[verb, "guest.raw", "--packs", ".", "--json"]);
    serde_json::from_str(&ended.out()).unwrap_or_else(|error| panic!("{error}: {}", ended.err()))
}

#[test]
fn a_table_says_that_it_is_not_verified() {
    let folder = pack("views-plain");
    let ended = ask(&folder, "ps");
    assert_eq!((ended.out().as_str(), ended.code()), ("PID  EXECUTABLE\n  1  /init\n  2  -\n", 0));
    let err = ended.err();
    assert!(err.contains("pslist.prog: not verified: the whole run needs"), "{err}");
    assert!(err.contains("getpsfile.prog: not verified: 2 of 2 rows; the first is that of 1: "), "{err}");
    let expected = json!({
        "processes": [{"pid": 1, "path": "/init"}, {"pid": 2, "path": null}],
        "verified": false, "full": [], "unlisted": null,
    });
    assert_eq!(json(&folder, "ps"), expected);
    let quiet = folder.virtuoso(&["ps", "guest.raw", "--packs", ".", "--quiet"]);
    assert_eq!((quiet.err().as_str(), quiet.code()), ("", 0));
    assert!(err.contains("without readdir.prog in the pack nothing but executables is told"), "{err}");
}

#[test]
fn processes_are_listed_where_their_files_cannot_be_asked() {
    let folder = pack("views-files");
    for name in ["readdir", "stat", "readlink", "read"] {
        put(&folder, name, "output \"rc\" i32 @0x2000", " store.32 0x2000, 0", "");
    }
    // Files are asked by whole runs, which need the companion file.
    let ended = ask(&folder, "ps");
    assert_eq!((ended.out().as_str(), ended.code()), ("PID  EXECUTABLE\n  1  /init\n  2  -\n", 1));
    let err = ended.err();
    assert!(
        err.contains("nothing but executables is told of processes: ") && err.contains(".system"),
        "{err}"
    );
    let brief = folder.virtuoso(&["ps", "guest.raw", "--packs", ".", "--brief"]);
    assert_eq!((brief.out(), brief.code()), (ended.out(), 0));
}

#[test]
fn packs_are_chosen_by_evidence() {
    let folder = Folder::new("views-evidence");
    target(&folder);
    for pack in ["a", "b", "c"] {
        std::fs::create_dir(folder.path(pack)).expect("a folder");
    }
    let processes = |pack: &str, pids: &[u32], kernel: &[u8]| {
        list_of(&folder, &format!("{pack}/pslist"), "pids", (pids, 8, 0), kernel);
    };
    let listed = || {
        let ended = ask(&folder, "ps");
        (ended.code(), ended.out().split_whitespace().skip(2).map(str::to_owned).collect::<String>())
    };
    // What is recognised by nothing fits every target, and is not chosen.
    processes("a", &[1, 7], &[]);
    let refused = |verb: &str, pack: &str| {
        let ended = ask(&folder, verb);
        let why = format!("{pack}: its programs hold no kernel code by which a target could be recognised");
        assert!(ended.code() == 20 && ended.err().contains(&why), "{}: {}", ended.code(), ended.err());
        assert_eq!(ended.out(), "");
    };
    refused("ps", "./a");
    processes("a", &[1, 7], &KERNEL[..8]);
    refused("ps", "./a");

    // Nearly the same kernel fits, and the same one better, wherever its name is in the order.
    let mut nearly = KERNEL;
    nearly[5] = 0xf8;
    processes("a", &[1, 7], &nearly);
    assert_eq!(listed(), (0, "1-7-".to_owned()));
    processes("b", &[1, 2], &KERNEL);
    assert_eq!(listed(), (0, "1-2-".to_owned()));
    processes("c", &[1, 3], &KERNEL[..20]);
    assert_eq!(listed(), (0, "1-2-".to_owned()), "more of its code is there");

    // A program that has no kernel code itself is known by the others of its training system.
    let header = "output \"sec\" u64 @0x2000\noutput \"nsec\" u64 @0x2008";
    put_of(&folder, "b/gettime", header, " store.32 0x2000, 60", "", &[]);
    assert_eq!(ask(&folder, "time").out(), "1970-01-01T00:01:00.000000000Z\n");
    std::fs::remove_file(folder.path("b/pslist.prog")).expect("it is there");
    refused("time", "./b");
    // Nor is one of another system taken for a row's.
    let header = "input \"pid\" u32 @0x2000\noutput \"path\" char[8] @0x2010";
    put_of(&folder, "c/getpsfile", header, " store.32 0x2010, 0x78", "", &[]);
    std::fs::remove_file(folder.path("a/pslist.prog")).expect("it is there");
    assert_eq!(listed(), (0, "1x3x".to_owned()));
    let path = folder.path("c/getpsfile.prog");
    let mut program =
        ir::Program::from_bytes(&std::fs::read(&path).expect("it is there")).expect("it is one");
    program.system = [7; 32];
    std::fs::write(&path, program.to_bytes().expect("it encodes")).expect("a file");
    let ended = ask(&folder, "ps");
    assert_eq!((ended.code(), ended.out().as_str()), (20, ""));
    assert!(
        ended.err().contains("was not made in the training system of ./c/pslist.prog"),
        "{}",
        ended.err()
    );
}

#[test]
fn a_row_that_fails_leaves_the_others() {
    let folder = pack("views-row");
    list(&folder, "pslist", "pids", &[1, 40_000, 2, 3], 8, 0);
    texts(&folder, "getpsfile", ("pid", "path"), &[(1, 0, "/init"), (2, -2, ""), (3, -0x9fa0, "")]);
    let ended = ask(&folder, "ps");
    assert_eq!(ended.code(), 12, "the first failing row's: {}", ended.err());
    let out = ended.out();
    let rows: Vec<&str> = out.lines().collect();
    assert_eq!((rows.len(), rows[1], rows[3]), (5, "    1  /init", "    2  -"), "{out}");
    assert!(rows[2].starts_with("40000  error: the slice stopped: unmapped memory: "), "{out}");
    assert!(rows[4].starts_with("    3  error: the guest's /proc is no procfs"), "{out}");
    assert!(ended.err().contains("2 of 4 rows without an answer"), "{}", ended.err());
    let rows = json(&folder, "ps");
    let rows = rows["processes"].as_array().expect("rows");
    assert_eq!(rows[0], json!({"pid": 1, "path": "/init"}));
    assert_eq!((&rows[1]["pid"], &rows[1]["path"]), (&json!(40_000), &Value::Null));
    assert!(rows[1]["error"].as_str().is_some_and(|error| error.contains("unmapped memory")), "{rows:?}");
}

#[test]
fn only_what_does_not_exist_is_a_dash() {
    let folder = pack("views-none");
    list(&folder, "pslist", "pids", &[1, 2, 3], 8, 0);
    texts(&folder, "getpsfile", ("pid", "path"), &[(1, 0, "/init"), (2, -2, ""), (3, -13, "")]);
    let ended = ask(&folder, "ps");
    let out = ended.out();
    let rows: Vec<&str> = out.lines().collect();
    assert_eq!((ended.code(), rows.len(), rows[2]), (1, 4, "  2  -"), "{out}");
    assert_eq!(rows[3], "  3  error: the guest's own code answers with the error code -13");
    assert!(json(&folder, "ps")["processes"][2]["error"].is_string());

    // What is listed as a module has a name.
    list(&folder, "lsmod", "bases", &[1, 2], 8, 0);
    texts(&folder, "getdrvfile", ("base", "name"), &[(1, 0, "loop"), (2, -2, "")]);
    let ended = ask(&folder, "lsmod");
    assert!(ended.out().contains("0x2  error: the guest's own code answers with the error code -2"));
    assert_eq!(ended.code(), 1);

    // Where nothing was asked a remark says so.
    std::fs::remove_file(folder.path("getpsfile.prog")).expect("it is there");
    let ended = ask(&folder, "ps");
    assert_eq!(ended.code(), 0);
    assert!(ended.err().contains("without getpsfile.prog in the pack no path is told"), "{}", ended.err());
}

#[test]
fn a_time_says_whether_it_is_verified() {
    let folder = pack("views-time");
    let header = "output \"sec\" u64 @0x2000\noutput \"nsec\" u64 @0x2008";
    put(&folder, "gettime", header, " store.32 0x2000, 86400\n store.32 0x2008, 5", "");
    let expected = json!({
        "seconds": 86400, "nanoseconds": 5, "time": "1970-01-02T00:00:00.000000005Z", "verified": false,
    });
    assert_eq!(json(&folder, "time"), expected);
}

#[test]
fn full_lists_and_texts_are_printed_with_their_own_code() {
    let folder = pack("views-full");
    list(&folder, "pslist", "pids", &[1, 2], 2, 0);
    let ended = ask(&folder, "ps");
    assert_eq!((ended.out().lines().count(), ended.code()), (3, 26));
    assert!(
        ended.err().contains("the output pids:u32[count<=2] is full: there may be more"),
        "{}",
        ended.err()
    );
    assert_eq!(json(&folder, "ps")["full"], json!(["pids"]));

    texts(&folder, "getpsfile", ("pid", "path"), &[(1, 0, "/bin/in"), (2, 0, "/bin/init")].map(cut));
    let ended = ask(&folder, "ps");
    assert_eq!(ended.code(), 26);
    assert!(
        ended.err().contains("getpsfile.prog: of 1 2: the output path:cstr[8] is full"),
        "{}",
        ended.err()
    );
    let listed = json(&folder, "ps");
    assert_eq!(listed["full"], json!(["pids", "path"]));
    assert_eq!(listed["processes"][0], json!({"pid": 1, "path": "/bin/in", "full": true}));

    // A stop comes first.
    list(&folder, "pslist", "pids", &[1, 40_000], 2, 0);
    assert_eq!(ask(&folder, "ps").code(), 12);

    list(&folder, "lsmod", "bases", &[1], 1, 0);
    texts(&folder, "getdrvfile", ("base", "name"), &[(1, 0, "loop")]);
    let ended = ask(&folder, "lsmod");
    assert_eq!((ended.out().as_str(), ended.code()), ("ADDRESS  MODULE\n    0x1  loop\n", 26));
    assert_eq!(json(&folder, "lsmod")["full"], json!(["bases"]));
    list(&folder, "lsmod", "bases", &[], 1, 0);
    assert_eq!(ask(&folder, "lsmod").code(), 0, "a system may have no modules");
}

/// What a buffer of eight bytes holds of a text.
fn cut((number, rc, text): (u32, i32, &str)) -> (u32, i32, &str) {
    (number, rc, &text[..text.len().min(8)])
}

#[test]
fn a_list_of_processes_that_cannot_be_all_is_doubted() {
    let folder = pack("views-doubt");
    let rows: Vec<(u32, i32, &str)> = (1..9).map(|pid| (pid, 0, "/x")).collect();
    texts(&folder, "getpsfile", ("pid", "path"), &rows);
    list(&folder, "pslist", "pids", &[2, 3], 8, 0);
    let ended = ask(&folder, "ps");
    assert_eq!((ended.out().lines().count(), ended.code()), (3, 0));
    let err = ended.err();
    assert!(err.contains("has no process 1") && err.contains("with pidprobe.prog in the pack"), "{err}");
    assert_eq!(json(&folder, "ps")["unlisted"], Value::Null);

    probe(&folder, &[1, 2, 3, 7]);
    let ended = ask(&folder, "ps");
    assert_eq!((ended.out().lines().count(), ended.code()), (3, 24), "{}", ended.err());
    let err = ended.err();
    assert!(err.contains("below 4096 only pidprobe sees: 1 7\n"), "{err}");
    assert!(err.contains("pidprobe sees 2 of the processes that pslist does not"), "{err}");
    assert_eq!(json(&folder, "ps")["unlisted"], json!([1, 7]));

    // A full list may just not have had room for them.
    list(&folder, "pslist", "pids", &[2, 3], 2, 0);
    assert_eq!(ask(&folder, "ps").code(), 26);
    list(&folder, "pslist", "pids", &[2, 3], 8, 0);

    // It sees no more: the doubt stays a remark.
    probe(&folder, &[2, 3]);
    let ended = ask(&folder, "ps");
    assert_eq!(ended.code(), 0);
    assert!(ended.err().contains("only pidprobe sees: nothing"), "{}", ended.err());

    // No process at all is never an answer.
    list(&folder, "pslist", "pids", &[], 8, 0);
    probe(&folder, &[1]);
    let ended = ask(&folder, "ps");
    assert_eq!((ended.out().as_str(), ended.code()), ("", 1));
    let err = ended.err();
    assert!(err.contains("no processes were found: that cannot be all"), "{err}");
    assert!(err.contains("only pidprobe sees: 1\n"), "{err}");
}

/// `pidprobe`, which sees these whatever its limit is.
fn probe(folder: &Folder, pids: &[u32]) {
    let header = "input \"limit\" u32 @0x2000\noutput \"count\" u32 @0x2004\n\
                  output \"pids\" u32[field \"count\" max 8] @0x2010";
    let mut ops = format!(" store.32 0x2004, {}", pids.len());
    for (at, pid) in pids.iter().enumerate() {
        ops += &format!("\n store.32 {:#x}, {pid}", 0x2010 + 4 * at);
    }
    put(folder, "pidprobe", header, &ops, "");
}

#[test]
fn what_the_guests_own_code_says_is_explained() {
    let folder = pack("views-rc");
    list(&folder, "pslist", "pids", &[], 8, -13);
    ask(&folder, "ps").fails(1, &["pslist.prog", "the error code -13"]);
    list(&folder, "pslist", "pids", &[], 8, -0x9fa0);
    ask(&folder, "ps")
        .fails(1, &["pslist.prog", "the guest's /proc is no procfs", "pidprobe", "--view paused"]);
}

fn crossview(folder: &Folder, words: &[&str]) -> Ended {
    let pair = ["crossview", "guest.raw", "--pair", "a.prog:pids=b.prog:pids"];
    folder.virtuoso(&[&pair[..], words].concat())
}

#[test]
fn views_that_fail_do_not_agree() {
    let folder = pack("crossview-rc");
    list(&folder, "a", "pids", &[], 8, 0);
    list(&folder, "b", "pids", &[], 8, -5);
    crossview(&folder, &[]).fails(1, &["b.prog", "the error code -5"]);
    list(&folder, "a", "pids", &[], 8, -0x9fa0);
    crossview(&folder, &["--json"]).fails(1, &["a.prog", "no procfs"]);
}

#[test]
fn what_a_full_view_lacks_is_no_difference() {
    let folder = pack("crossview-full");
    let views = |a: (&[u32], u32), b: (&[u32], u32)| {
        list(&folder, "a", "pids", a.0, a.1, 0);
        list(&folder, "b", "pids", b.0, b.1, 0);
        let object: Value = serde_json::from_str(&crossview(&folder, &["--json"]).out()).expect("JSON");
        let ended = crossview(&folder, &[]);
        (ended.code(), object["full"].clone(), ended.err())
    };
    assert_eq!(views((&[1, 2], 8), (&[1, 2], 8)).0, 0);
    let (code, full, err) = views((&[1, 2], 2), (&[1, 2, 3], 8));
    assert_eq!((code, full), (26, json!(["a.prog:pids"])));
    assert!(err.contains("a.prog: the output pids:u32[count<=2] is full"), "{err}");
    assert!(err.contains("a.prog: not verified: "), "{err}");
    // What it has beside the other is one.
    assert_eq!(views((&[1, 2], 2), (&[1, 3], 8)).0, 24);
    assert_eq!(views((&[1, 2], 2), (&[1, 3], 2)).0, 26);
}
