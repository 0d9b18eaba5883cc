//! QEMU's monitor through libvirt: `virsh qemu-monitor-command`, one process a command.
//!
//! libvirt keeps a guest's monitor for itself and passes commands on. A file is handed over as the
//! standard input of virsh, whose number is known to be 0 (`--pass-fds`, libvirt 8.2 and newer).
//! Which libvirt is asked is virsh's own business (`LIBVIRT_DEFAULT_URI`). A process takes tens of
//! milliseconds, and so the pause is longer than over a socket. Of events this way tells nothing: a
//! guest that others resumed is noticed at the end of the pause by its state.

use std::fs::File;
use std::io;
use std::process::{Command, Stdio};

use machine::target::live::{Monitor, MonitorError, result};
use serde_json::{Value, json};

/// The monitor of a domain of libvirt.
#[derive(Debug)]
pub struct Virsh {
    domain: String,
}

impl Virsh {
    /// The domain with this name, number or UUID.
    pub fn new(domain: &str) -> Self {
        Self { domain: domain.to_owned() }
    }

    fn ask(&self, request: &Value, file: Option<&File>) -> io::Result<Result<Value, String>> {
        let mut command = virsh();
        command.arg("qemu-monitor-command");
        match file {
            Some(file) => command.args(["--pass-fds", "0"]).stdin(file.try_clone()?),
            None => command.stdin(Stdio::null()),
        };
        let output =
            command.arg("--domain").arg(&self.domain).arg("--cmd").arg(request.to_string()).output()?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            return Ok(Err(text.trim().trim_start_matches("error: ").to_owned()));
        }
        Ok(serde_json::from_slice(&output.stdout).map_err(|error| format!("virsh prints no JSON: {error}")))
    }
}

impl Monitor for Virsh {
    fn execute(
        &mut self,
        command: &str,
        arguments: Value,
        file: Option<&File>,
    ) -> Result<Value, MonitorError> {
        let request = json!({ "execute": command, "arguments": arguments });
        match self.ask(&request, file) {
            Ok(Ok(answer)) => result(command, answer),
            Ok(Err(text)) => {
                Err(MonitorError::Refused { command: command.to_owned(), text: format!("by virsh: {text}") })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(MonitorError::Unreachable {
                what: "libvirt's domains are asked through virsh, which is not installed".to_owned(),
                hint: "install it (Debian and Ubuntu: libvirt-clients, Fedora: libvirt-client), or give \
                       QEMU a monitor of its own with -qmp unix:PATH,server=on,wait=off and name the guest \
                       qmp:PATH",
            }),
            Err(error) => {
                Err(MonitorError::Lost { command: command.to_owned(), text: format!("virsh: {error}") })
            }
        }
    }
}

/// virsh, saying what it says in English: some of it is understood.
fn virsh() -> Command {
    let mut command = Command::new("virsh");
    command.env("LC_ALL", "C");
    command
}

/// Whether virsh is there and knows the domain.
pub fn knows(domain: &str) -> bool {
    let mut command = virsh();
    command
        .args(["domid", "--domain", domain])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
