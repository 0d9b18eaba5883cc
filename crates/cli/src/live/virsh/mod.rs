//! QEMU's monitor through libvirt: `virsh qemu-monitor-command`, one process a command.
//!
//! libvirt keeps a guest's monitor for itself and passes commands on. A file is handed over as the
//! standard input of virsh, whose number is known to be 0 (`--pass-fds`, libvirt 8.2 and newer).
//! Which libvirt is asked is virsh's own business (`LIBVIRT_DEFAULT_URI`). A process takes tens of
//! milliseconds, and so the pause is longer than over a socket. Events come from another virsh that
//! is kept open (see [`events`]).
//!
//! There is no connection that ends with the guest. So a domain is named by its number, which the
//! next QEMU of the same domain does not have: else the memory of the one and the processors of the
//! other might be taken for a guest.

mod command;
pub mod events;

use std::fs::File;
use std::io;

use machine::target::live::{Events, Monitor, MonitorError, result};
use serde_json::{Value, json};

use command::{Said, call};
use events::Listener;

/// The first libvirt that is known to live on when QEMU tells it of a dump that libvirt has not
/// asked for: 9.0.0 (Debian 12) follows a null pointer then and ends, with the guest paused; 11.3.0
/// does not. What those between do is not known.
const DUMPS_SINCE: [u32; 3] = [11, 3, 0];

/// The monitor of a domain of libvirt.
pub struct Virsh {
    domain: String,
    listener: Option<Listener>,
    /// Why nobody listens to events.
    deaf: String,
    may_dump: bool,
}

impl Virsh {
    /// The domain with this name, number or UUID, to give it orders only.
    pub fn new(domain: &str) -> Self {
        let deaf = "nobody has asked for events".to_owned();
        Self { domain: domain.to_owned(), listener: None, deaf, may_dump: false }
    }

    /// The same, to read it: its events are listened to from now on.
    pub fn listening(domain: &str) -> Result<Self, MonitorError> {
        // virsh comes with the daemon. To ask the daemon is slow where it looks at QEMU anew first.
        let may_dump = newer(&asked(&["--version"])?.out, "")
            && newer(&asked(&["version", "--daemon"])?.out, "Running against daemon: ");
        Ok(Self { listener: Some(Listener::start(domain)), may_dump, ..Self::new(domain) })
    }

    fn ask(&self, request: &Value, file: Option<&File>) -> io::Result<Result<Value, String>> {
        let request = request.to_string();
        let mut words = vec!["qemu-monitor-command"];
        if file.is_some() {
            words.extend(["--pass-fds", "0"]);
        }
        words.extend(["--domain", &self.domain, "--cmd", &request]);
        let said = call(&words, file)?;
        if !said.done {
            return Ok(Err(said.messages));
        }
        Ok(serde_json::from_slice(&said.out).map_err(|error| format!("virsh prints no JSON: {error}")))
    }
}

impl Monitor for Virsh {
    fn execute(
        &mut self,
        command: &str,
        arguments: Value,
        file: Option<&File>,
    ) -> Result<Value, MonitorError> {
        if let Some(listener) = &self.listener {
            match command {
                "stop" => listener.stopping(),
                "cont" => listener.letting_run(),
                _ => {}
            }
        }
        let request = json!({ "execute": command, "arguments": arguments });
        let answer = match self.ask(&request, file) {
            Ok(Ok(answer)) => result(command, answer)?,
            Ok(Err(text)) => {
                return Err(MonitorError::Refused {
                    command: command.to_owned(),
                    text: format!("by virsh: {text}"),
                });
            }
            Err(error) => return Err(lost(command, error)),
        };
        if command == "stop"
            && let Some(listener) = &self.listener
            && !listener.has_stopped()
        {
            let silent = || "virsh does not tell that the guest was paused".to_owned();
            self.deaf =
                listener.ended().map_or_else(silent, |why| format!("virsh qemu-monitor-event: {why}"));
            self.listener = None;
        }
        Ok(answer)
    }

    fn take_events(&mut self) -> Result<Option<Events>, MonitorError> {
        let Some(listener) = &self.listener else { return Ok(None) };
        match listener.ended() {
            Some(why) if listener.hears() => Err(no_events(why)),
            Some(why) => {
                self.deaf = format!("virsh qemu-monitor-event: {why}");
                self.listener = None;
                Ok(None)
            }
            None => Ok(Some(listener.take())),
        }
    }

    fn late_events(&mut self) -> Result<Events, MonitorError> {
        match &self.listener {
            Some(listener) => listener.late().map_err(no_events),
            None => Ok(Events::default()),
        }
    }

    fn unheard(&self) -> Option<String> {
        match &self.listener {
            Some(listener) if listener.hears() => None,
            Some(_) => Some("virsh has told of no event yet, so whether it listens is not known".to_owned()),
            None => Some(self.deaf.clone()),
        }
    }

    fn may_dump(&self) -> bool {
        self.may_dump
    }
}

fn lost(command: &str, error: io::Error) -> MonitorError {
    if error.kind() == io::ErrorKind::NotFound {
        return MonitorError::Unreachable {
            what: "libvirt's domains are asked through virsh, which is not installed".to_owned(),
            hint: "install it (Debian and Ubuntu: libvirt-clients, Fedora: libvirt-client), or give \
                   QEMU a monitor of its own with -qmp unix:PATH,server=on,wait=off and name the guest \
                   qmp:PATH",
        };
    }
    MonitorError::Lost { command: command.to_owned(), text: format!("virsh: {error}") }
}

fn no_events(why: String) -> MonitorError {
    MonitorError::Lost { command: "events".to_owned(), text: format!("virsh qemu-monitor-event: {why}") }
}

/// What virsh says, or that it does not.
fn asked(words: &[&str]) -> Result<Said, MonitorError> {
    let said = call(words, None).map_err(|error| lost(words[0], error))?;
    if said.done {
        return Ok(said);
    }
    Err(MonitorError::Unreachable {
        what: format!("virsh: {}", said.messages),
        hint: "see virsh list --all, and LIBVIRT_DEFAULT_URI, which says where virsh looks (such as \
               qemu:///system)",
    })
}

/// Whether the version that stands behind `words` at a line's begin is one that may be told of
/// dumps.
fn newer(out: &[u8], words: &str) -> bool {
    let text = String::from_utf8_lossy(out);
    let version = text.lines().find_map(|line| line.strip_prefix(words)).unwrap_or_default();
    let numbers: Option<Vec<u32>> = version.trim().split('.').map(|number| number.parse().ok()).collect();
    numbers.is_some_and(|numbers| numbers.len() == DUMPS_SINCE.len() && *numbers >= DUMPS_SINCE[..])
}

/// The number of the domain with this name, number or UUID, which it has as long as its QEMU lives.
pub fn number(domain: &str) -> Result<String, MonitorError> {
    // Not `domid`, which knows no numbers.
    let said = asked(&["dominfo", "--domain", domain])?;
    let text = String::from_utf8_lossy(&said.out);
    let number = text.lines().find_map(|line| line.strip_prefix("Id:")).map_or("", str::trim);
    if !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()) {
        return Ok(number.to_owned());
    }
    Err(MonitorError::Unreachable {
        what: "libvirt has this domain, and it does not run".to_owned(),
        hint: "start it with virsh start, or ask a file of virsh save, or of virsh dump --memory-only",
    })
}

/// Whether virsh is there and knows the domain.
pub fn knows(domain: &str) -> bool {
    call(&["dominfo", "--domain", domain], None).is_ok_and(|said| said.done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_daemons_may_be_told_of_dumps() {
        let words = "Running against daemon: ";
        let said = |version: &str| format!("Using library: libvirt 11.3.0\n{words}{version}\n\n");
        for version in ["11.3.0", "11.10.1", "12.0.0"] {
            assert!(newer(said(version).as_bytes(), words) && newer(version.as_bytes(), ""), "{version}");
        }
        for version in ["9.0.0", "11.2.9", "", "11.3", "11.3.0.1", "11.3.x"] {
            assert!(!newer(said(version).as_bytes(), words) && !newer(version.as_bytes(), ""), "{version}");
        }
        assert!(!newer(b"Using library: libvirt 11.3.0", words));
    }
}
