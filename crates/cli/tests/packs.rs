//! Packs as a user comes by them: where they lie, what `packs list` says of them, what is said
//! where none fits, and kernels out of packages. No test boots a guest.

#![forbid(unsafe_code)]

#[allow(dead_code, reason = "shared with other tests, which need more of it")]
mod support;

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::{Ended, Folder, Slice, companion, companion_name, program};

/// What a Debian kernel calls itself.
const BANNER: &str = "Linux version 6.1.0-57-amd64 (debian-kernel@lists.debian.org) (gcc-12) #1 SMP \
                      PREEMPT_DYNAMIC Debian 6.1.192-3 (2026-11-26)";

/// A pack with one program and its companion, below `data/virtuoso/packs`.
fn pack(folder: &Folder, name: &str, banner: &str) {
    let directory = format!("data/virtuoso/packs/{name}");
    std::fs::create_dir_all(folder.path(&directory)).expect("a folder");
    let mut program = program(&Slice::Right);
    program.code.push(ir::program::CodeRange { addr: 0x100, bytes: vec![0x90; 64] });
    folder.file(&format!("{directory}/readdir.prog"), program.to_bytes().expect("it encodes"));
    folder.file(&format!("{directory}/{}", companion_name()), companion());
    let info = serde_json::json!({
        "format": 1, "banner": banner, "kernel": "vmlinuz", "made": "2026-11-29T20:32:53Z",
        "by": "virtuoso 0.1.0",
    });
    folder.file(&format!("{directory}/pack.json"), info.to_string());
}

/// Runs the command with its data in the folder.
fn virtuoso(folder: &Folder, arguments: &[&str]) -> Ended {
    folder.virtuoso_with(&[("XDG_DATA_HOME", &folder.path("data"))], arguments)
}

#[test]
fn packs_are_listed_with_their_kernels_and_damaged_ones_are_named() {
    let folder = Folder::new("packs-list");
    let ended = virtuoso(&folder, &["packs", "list"]);
    assert_eq!((ended.code(), ended.out().as_str()), (0, ""));
    assert!(ended.err().contains("virtuoso train --for TARGET"), "{}", ended.err());
    folder.virtuoso(&["packs", "list", "--packs", "nowhere"]).fails(1, &["nowhere"]);

    pack(&folder, "6.1.0-57-amd64", BANNER);
    pack(&folder, "odd", "a banner\u{1b}[31m");
    std::fs::create_dir(folder.path("data/virtuoso/packs/empty")).expect("a folder");
    let ended = virtuoso(&folder, &["packs", "list"]);
    assert_eq!((ended.code(), ended.err().as_str()), (0, ""));
    let out = ended.out();
    let first = "6.1.0-57-amd64: 1 program of 0 recordings, ";
    assert!(out.starts_with(first) && out.contains(", made 2026-11-29T20:32:53Z\n"), "{out}");
    assert!(out.contains(&format!("\n  {BANNER}\n  readdir\nodd: ")), "{out}");
    assert!(out.contains("a banner\\u{1b}[31m") && !out.contains("empty"), "{out}");

    // A companion cut off, a program that is none, and a description of another version.
    let packs = folder.path("data/virtuoso/packs");
    let bytes = companion();
    std::fs::write(packs.join("odd").join(companion_name()), &bytes[..bytes.len() - 1]).expect("a file");
    std::fs::write(packs.join("odd/read.prog"), "nothing").expect("a file");
    pack(&folder, "old", BANNER);
    std::fs::write(packs.join("old/pack.json"), "{}").expect("a file");
    let ended = virtuoso(&folder, &["packs", "list", "--json"]);
    assert_eq!(ended.code(), 1);
    let err = ended.err();
    assert!(
        err.contains(&companion_name()) && err.contains("read.prog") && err.contains("pack.json"),
        "{err}"
    );
    assert!(!err.contains("6.1.0-57-amd64"), "{err}");
    let list: Value = serde_json::from_str(&ended.out()).expect("JSON");
    let damage = |at: usize| list["packs"][at]["damage"].as_array().map(Vec::len);
    assert_eq!([damage(0), damage(1), damage(2), damage(3)], [Some(0), Some(2), Some(1), None]);
    assert_eq!(list["packs"][0]["banner"], BANNER);
    assert_eq!(list["packs"][0]["programs"], serde_json::json!(["readdir"]));
}

#[test]
fn who_has_no_pack_for_a_target_is_told_what_it_runs() {
    let folder = Folder::new("packs-none");
    let mut ram = vec![0; 1 << 16];
    ram[5000..5000 + BANNER.len()].copy_from_slice(BANNER.as_bytes());
    ram[5000 + BANNER.len()] = b'\n';
    support::target(&folder);
    folder.file("guest.raw", &ram);
    let says = |ended: &Ended, code: i32| {
        let err = ended.err();
        assert_eq!((ended.code(), ended.out().as_str()), (code, ""), "{err}");
        assert!(err.contains(&format!("\n  it runs {BANNER}\n")), "{err}");
        assert!(err.contains("virtuoso train --for guest.raw"), "{err}");
    };
    // No packs at all, none with file programs, and one of another kernel.
    says(&virtuoso(&folder, &["ls", "guest.raw", "/"]), 1);
    std::fs::create_dir_all(folder.path("data/virtuoso/packs")).expect("a folder");
    says(&virtuoso(&folder, &["cat", "guest.raw", "/x"]), 1);
    pack(&folder, "other", BANNER);
    says(&virtuoso(&folder, &["ls", "guest.raw", "/x"]), 20);

    // Several kernels' banners, one of them hostile.
    let other = "Linux version 5.10.0-1-amd64 (a) (b) #7 SMP\u{7f}\u{1b}[31m";
    ram[9000..9000 + other.len()].copy_from_slice(other.as_bytes());
    ram[5000 + BANNER.len()] = 0;
    folder.file("guest.raw", &ram);
    let ended = virtuoso(&folder, &["ls", "guest.raw", "/"]);
    let err = ended.err();
    assert!(ended.code() == 20 && err.contains("several kernels") && err.contains(BANNER), "{err}");
    assert!(err.contains("Linux version 5.10.0-1-amd64 (a) (b) #7 SMP\n") && !err.contains('\x1b'), "{err}");
    let ended = virtuoso(&folder, &["train", "--quiet", "--for", "guest.raw"]);
    assert!(
        ended.code() == 1 && ended.err().contains("--deb") && ended.err().contains(BANNER),
        "{}",
        ended.err()
    );
    folder.file("guest.raw", [0; 8192]);
    virtuoso(&folder, &["train", "--for", "guest.raw"])
        .fails(1, &["no banner of a Linux kernel", "--kernel, --deb or --rpm"]);
}

/// A kernel image that calls itself as [`BANNER`] does.
fn image() -> Vec<u8> {
    let mut image = vec![0; 0x260];
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&[0x0f, 2]);
    image[0x20e] = 0x60;
    image[0x236] = 1;
    image.extend(b"6.1.0-57-amd64 (debian-kernel@lists.debian.org) #1 SMP\0");
    image
}

#[test]
fn a_pack_is_never_written_over_another() {
    let folder = Folder::new("packs-over");
    folder.file("vmlinuz", image());
    folder.file("busybox", "any");
    pack(&folder, "6.1.0-57-amd64", BANNER);
    let train = ["train", "--quiet", "--kernel", "vmlinuz", "--busybox", "busybox"];
    virtuoso(&folder, &train)
        .fails(1, &["data/virtuoso/packs/6.1.0-57-amd64", "already", BANNER, "--output"]);
    let named = [&train[..], &["-o", "data/virtuoso/packs/6.1.0-57-amd64"]].concat();
    virtuoso(&folder, &named).fails(1, &["not empty"]);
    assert_eq!(virtuoso(&folder, &["packs", "list"]).code(), 0, "it is as it was");
    let ended = virtuoso(&folder, &["train", "--kernel", "vmlinuz", "--deb", "x.deb"]);
    assert_eq!(ended.code(), 2, "{}", ended.err());
}

#[test]
fn a_kernel_comes_out_of_a_package() {
    let folder = Folder::new("packs-deb");
    folder.file("busybox", "any");
    folder.file("no.deb", "no package");
    let train = |words: &[&str]| {
        let common = ["train", "--quiet", "--busybox", "busybox", "--qemu", "no-such-emulator"];
        virtuoso(&folder, &[&common[..], words].concat())
    };
    train(&["--deb", "nowhere.deb"]).fails(1, &["nowhere.deb", "check the path"]);
    if Command::new("dpkg-deb").arg("--version").output().is_err() {
        eprintln!("skipped: there is no dpkg-deb");
        return;
    }
    assert_eq!(train(&["--deb", "no.deb"]).code(), 1);
    for directory in ["tree/DEBIAN", "tree/boot", "tree/lib/modules/6.1.0-57-amd64/kernel"] {
        std::fs::create_dir_all(folder.path(directory)).expect("a folder");
    }
    let control = "Package: linux-image-6.1.0-57-amd64\nVersion: 1\nArchitecture: amd64\nMaintainer: x\n\
                   Description: x\n";
    folder.file("tree/DEBIAN/control", control);
    folder.file("tree/boot/config-6.1.0-57-amd64", "x");
    let build = || {
        let mut command = Command::new("dpkg-deb");
        let built = command.args(["--root-owner-group", "-b", "tree", "x.deb"]).current_dir(folder.path(""));
        assert!(built.output().expect("dpkg-deb").status.success());
    };
    build();
    train(&["--deb", "x.deb"]).fails(1, &["x.deb: there is no kernel image"]);
    folder.file("tree/boot/vmlinuz-6.1.0-57-amd64", image());
    folder.file("tree/lib/modules/6.1.0-57-amd64/kernel/loop.ko", "\0depends=\0name=loop\0");
    build();
    // All is there but the emulator.
    let ended = train(&["--deb", "x.deb"]);
    assert!(ended.code() == 32 && ended.err().contains("no-such-emulator"), "{}", ended.err());
    let packs = folder.path("data/virtuoso/packs");
    let left: Vec<_> =
        std::fs::read_dir(&packs).expect("packs").map(|it| it.expect("it").file_name()).collect();
    assert_eq!(left, ["6.1.0-57-amd64"], "what was unpacked is gone");
    assert!(is_empty(&packs.join("6.1.0-57-amd64")), "nothing half-made stays");
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
}
