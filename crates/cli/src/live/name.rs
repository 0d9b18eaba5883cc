//! Names of live guests on the command line: `qmp:SOCKET`, `libvirt:DOMAIN`, or a domain's bare
//! name where there is no such file.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use machine::target::live::{Monitor, MonitorError, QmpSocket};

use super::virsh::{self, Virsh};

/// How a live guest is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Name {
    /// A QMP monitor on a Unix socket.
    Qmp(PathBuf),
    /// A domain of libvirt, by its name, number or UUID.
    Libvirt(String),
}

impl Name {
    /// The guest that a target's name on the command line means; none where it is a file's.
    pub fn parse(path: &Path) -> Option<Self> {
        let bytes = path.as_os_str().as_bytes();
        if let Some(socket) = bytes.strip_prefix(b"qmp:") {
            return Some(Self::Qmp(OsStr::from_bytes(socket).into()));
        }
        let text = path.to_str()?;
        if let Some(domain) = text.strip_prefix("libvirt:") {
            return Some(Self::Libvirt(domain.to_owned()));
        }
        let bare = !text.is_empty() && !text.contains('/') && !text.starts_with('-') && !path.exists();
        (bare && virsh::knows(text)).then(|| Self::Libvirt(text.to_owned()))
    }

    /// The name with its prefix, as the command line takes it.
    pub fn to_argument(&self) -> OsString {
        match self {
            Self::Qmp(socket) => OsString::from_vec([b"qmp:", socket.as_os_str().as_bytes()].concat()),
            Self::Libvirt(domain) => format!("libvirt:{domain}").into(),
        }
    }

    /// The name of this very run of the guest, which the next one does not have.
    pub fn of_this_run(self) -> Result<Self, MonitorError> {
        Ok(match self {
            // The connection to it ends with QEMU.
            Self::Qmp(socket) => Self::Qmp(socket),
            Self::Libvirt(domain) => Self::Libvirt(virsh::number(&domain)?),
        })
    }

    /// Connects to the monitor of the guest that has this name, to read the guest.
    pub fn reader(&self) -> Result<Box<dyn Monitor>, MonitorError> {
        match self {
            Self::Qmp(_) => self.monitor(),
            Self::Libvirt(domain) => Ok(Box::new(Virsh::listening(domain)?)),
        }
    }

    /// Connects to the monitor of the guest that has this name, to give it orders.
    pub fn monitor(&self) -> Result<Box<dyn Monitor>, MonitorError> {
        Ok(match self {
            Self::Qmp(socket) => Box::new(QmpSocket::connect(socket)?),
            Self::Libvirt(domain) => Box::new(Virsh::new(domain)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_name_guests_and_paths_do_not() {
        assert_eq!(Name::parse(Path::new("qmp:/run/q.sock")), Some(Name::Qmp("/run/q.sock".into())));
        assert_eq!(Name::parse(Path::new("libvirt:web")), Some(Name::Libvirt("web".into())));
        assert_eq!(Name::parse(Path::new("./qmp:x")), None);
        assert_eq!(Name::parse(Path::new("/tmp/guest.elf")), None);
        let name = Name::Qmp("/run/q.sock".into());
        assert_eq!(Name::parse(Path::new(&name.to_argument())), Some(name));
    }
}
