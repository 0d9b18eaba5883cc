//! Tables and pairs of views: what they print where a row has no answer, where a list is full or
//! cannot be all, and where the guest's own code fails.
//!
//! The packs are written down here: programs whose answers are constants, over memory of zeros.

#![forbid(unsafe_code)]

#[allow(dead_code, reason = "shared with other tests, which need more of it")]
mod support;

use serde_json::{Value, json};
use support::{Ended, Folder, target};

/// A 32-bit program with these lines in its header and these operations. It has a page at 0x2000
/// and what `rows` puts at 0x3000.
fn put(folder: &Folder, name: &str, header: &str, ops: &str, rows: &str) {
    let text = format!(
        "program \"{name}\"\nbits 32\nbegin 0x1000\n{header}\npage 0x2000 zero\n\
         page 0x3000 bytes 4096 {{\n{rows}}}\nfunction f0 0x1000 \"main\" {{\nb0 @0x1000:\n{ops}\n end\n}}\n"
    );
    let program = ir::text::parse_program(&text, machine::Reg::NAMES).expect("it parses");
    folder.file(&format!("{name}.prog"), program.to_bytes().expect("it encodes"));
}

/// A program whose list `output` of at most `max` numbers is this, and whose return code is `rc`.
fn list(folder: &Folder, name: &str, output: &str, numbers: &[u32], max: u32, rc: i32) {
    let header = format!(
        "output \"rc\" i32 @0x2000\noutput \"count\" u32 @0x2004\n\
         output \"{output}\" u32[field \"count\" max {max}] @0x2010"
    );
    let mut ops = format!(" store.32 0x2000, {:#x}\n store.32 0x2004, {}", rc as u32, numbers.len());
    for (at, number) in numbers.iter().enumerate() {
        ops += &format!("\n store.32 {:#x}, {number}", 0x2010 + 4 * at);
    }
    put(folder, name, &header, &ops, "");
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
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
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
