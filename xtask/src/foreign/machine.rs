//! A machine that boots a user's disk image, and what is typed into it.
//!
//! Nothing of the image is changed (`snapshot=on`). Programs come on a second disk, which QEMU
//! makes of a directory; what they print goes to the first serial port. A line is started by the
//! keys that open the system's own prompt for one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use testkit::guest::Guest;
use testkit::qmp::Qmp;
use testkit::{Error, Result};

/// How to boot.
pub struct Machine<'m> {
    /// The raw disk with the system.
    pub image: &'m Path,
    /// A directory that becomes the second disk.
    pub disk: &'m Path,
    /// A VGA BIOS other than QEMU's own.
    pub vga_rom: Option<&'m Path>,
}

impl Machine<'_> {
    /// QEMU's command line; the serial port is written to `serial`.
    fn argv(&self, serial: &Path) -> Vec<OsString> {
        let drive = |file: &str, path: &Path, more: &str| {
            let mut text = OsString::from(file);
            text.push(path);
            text.push(more);
            text
        };
        let fixed = "-m 256 -display none -no-reboot -nodefaults -vga none -nic none";
        let mut argv: Vec<OsString> = vec!["qemu-system-i386".into()];
        argv.extend(fixed.split(' ').map(OsString::from));
        argv.extend(["-serial".into(), drive("file:", serial, "")]);
        argv.extend(["-drive".into(), drive("file=", self.image, ",format=raw,if=ide,snapshot=on")]);
        argv.extend(["-drive".into(), drive("file=fat:", self.disk, ",format=raw,if=ide,snapshot=on")]);
        let mut vga = OsString::from("VGA");
        if let Some(rom) = self.vga_rom {
            vga.push(",romfile=");
            vga.push(rom);
        }
        argv.extend(["-device".into(), vga]);
        argv
    }

    /// Boots it; `recorder` is what stands before QEMU's command line, and QEMU's options for it.
    ///
    /// # Errors
    /// What QEMU says.
    pub fn boot(&self, serial: &Path, recorder: Option<&[OsString]>) -> Result<Booted> {
        let mut argv: Vec<OsString> = recorder.unwrap_or_default().to_vec();
        argv.extend(self.argv(serial));
        if recorder.is_some() {
            // Recording slows the guest down, and it must not notice.
            argv.extend(["-icount".into(), "shift=auto".into()]);
        }
        let guest = Guest::boot(&argv)?;
        let deadline = Instant::now() + Duration::from_secs(30);
        let qmp = loop {
            match guest.qmp() {
                Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(100)),
                qmp => break qmp?,
            }
        };
        Ok(Booted { guest, qmp, serial: serial.to_owned() })
    }
}

/// A running one.
pub struct Booted {
    guest: Guest,
    /// Its monitor.
    pub qmp: Qmp,
    serial: PathBuf,
}

impl Booted {
    /// What programs have printed.
    pub fn printed(&self) -> String {
        std::fs::read(&self.serial).map_or(String::new(), |it| String::from_utf8_lossy(&it).into_owned())
    }

    /// Waits until the screen stands still, with more than text on it: the desktop is there.
    ///
    /// # Errors
    /// When it does not within ten minutes.
    pub fn wait_for_desktop(&mut self) -> Result<()> {
        let picture = self.serial.with_extension("ppm");
        let (mut last, mut still) = (Vec::new(), 0);
        for _ in 0..150 {
            std::thread::sleep(Duration::from_secs(4));
            self.qmp.execute("screendump", json!({ "filename": picture.to_string_lossy() }))?;
            let now = std::fs::read(&picture).map_err(Error::io(&picture))?;
            still = if now == last && now.len() > 1 << 20 { still + 1 } else { 0 };
            if still == 4 {
                return Ok(());
            }
            last = now;
        }
        Err(Error::Qmp("the guest's screen does not come to rest".to_owned()))
    }

    /// Opens the prompt for a line and types one, until `marker` is printed; what was printed.
    ///
    /// # Errors
    /// When the marker does not come within five minutes.
    pub fn start(&mut self, line: &str, marker: &str) -> Result<String> {
        let from = self.printed().len();
        self.key("meta_l-r")?;
        std::thread::sleep(Duration::from_secs(6));
        for letter in line.chars() {
            self.key(&key_of(letter))?;
        }
        self.key("ret")?;
        let deadline = Instant::now() + Duration::from_secs(300);
        loop {
            let printed = self.printed();
            let new = printed.get(from..).unwrap_or_default();
            if new.contains(marker) {
                return Ok(new.to_owned());
            }
            if Instant::now() > deadline {
                let tail = new.to_owned();
                return Err(Error::Timeout { marker: marker.to_owned(), seconds: 300, tail });
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    fn key(&mut self, keys: &str) -> Result<()> {
        self.qmp.human(&format!("sendkey {keys}"))?;
        std::thread::sleep(Duration::from_millis(150));
        Ok(())
    }

    /// Ends it and waits until it has.
    ///
    /// # Errors
    /// When it does not end.
    pub fn end(mut self) -> Result<()> {
        self.qmp.quit()?;
        self.guest.wait_for_end(Duration::from_secs(60)).map(drop)
    }
}

/// QEMU's name of the key for a letter, on an American keyboard.
fn key_of(letter: char) -> String {
    match letter {
        ' ' => "spc".to_owned(),
        ':' => "shift-semicolon".to_owned(),
        '\\' => "backslash".to_owned(),
        '.' => "dot".to_owned(),
        '/' => "slash".to_owned(),
        '>' => "shift-dot".to_owned(),
        other => other.to_string(),
    }
}
