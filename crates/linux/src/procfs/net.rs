//! `/proc/PID/net/tcp` and others beside it: the sockets of a network namespace.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A kind of socket, which is a file of its own below `net`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Protocol {
    /// TCP over IPv4.
    Tcp,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv4.
    Udp,
    /// UDP over IPv6.
    Udp6,
    /// IPv4 without a protocol above it.
    Raw,
    /// IPv6 without a protocol above it.
    Raw6,
    /// Sockets of this system only.
    Unix,
    /// Talking to the kernel.
    Netlink,
    /// What is on a network.
    Packet,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Tcp,
        Self::Tcp6,
        Self::Udp,
        Self::Udp6,
        Self::Raw,
        Self::Raw6,
        Self::Unix,
        Self::Netlink,
        Self::Packet,
    ];

    /// The name of its file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tcp6 => "tcp6",
            Self::Udp => "udp",
            Self::Udp6 => "udp6",
            Self::Raw => "raw",
            Self::Raw6 => "raw6",
            Self::Unix => "unix",
            Self::Netlink => "netlink",
            Self::Packet => "packet",
        }
    }
}

/// Where a socket is, or leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// An address and a port.
    Internet(SocketAddr),
    /// A path, or a name behind an `@` that stands for its first NUL.
    Path(Vec<u8>),
    /// Nowhere.
    None,
}

/// A socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Socket {
    /// What it is.
    pub protocol: Protocol,
    /// `stream`, `datagram`, `seqpacket` or `raw`.
    pub kind: &'static str,
    /// Its own address.
    pub local: Address,
    /// The other end's, where procfs says.
    pub remote: Address,
    /// Its state, as netstat and ss call it.
    pub state: &'static str,
    /// The number of the user that it belongs to, where procfs says.
    pub user: Option<u32>,
    /// Its inode's number, 0 if it has none any more.
    pub inode: u64,
}

/// The sockets in a file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sockets {
    /// Those of which the line says all.
    pub sockets: Vec<Socket>,
    /// How many lines say something else.
    pub strange: usize,
}

impl Sockets {
    /// Reads a file's text.
    #[must_use]
    pub fn parse(protocol: Protocol, bytes: &[u8]) -> Self {
        let mut found = Self::default();
        // The first line has the columns' names.
        for line in bytes.split(|&byte| byte == b'\n').skip(1) {
            let socket = match protocol {
                Protocol::Unix => local(line),
                Protocol::Netlink | Protocol::Packet => kernels(protocol, line),
                _ => internet(protocol, line),
            };
            let before = found.sockets.last_mut().map(|it| &mut it.local);
            match (socket, protocol, before) {
                (Some(socket), ..) => found.sockets.push(socket),
                // A name may have line feeds, which the kernel writes as they are.
                (None, Protocol::Unix, Some(Address::Path(path))) => {
                    path.push(b'\n');
                    path.extend_from_slice(line);
                }
                _ if line.is_empty() => {}
                _ => found.strange += 1,
            }
        }
        // The file's own last line feed is no part of a name.
        if let (Some(Socket { local: Address::Path(path), .. }), true) =
            (found.sockets.last_mut(), bytes.ends_with(b"\n"))
        {
            path.pop();
        }
        found
    }
}

/// States by their numbers (include/net/tcp_states.h).
const STATES: [&str; 13] = [
    "?",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "NEW_SYN_RECV",
];

/// `SL: LOCAL:PORT REMOTE:PORT STATE TX:RX TIMER:WHEN RETRANSMITS USER TIMEOUT INODE ...`.
fn internet(protocol: Protocol, line: &[u8]) -> Option<Socket> {
    let fields: Vec<&str> = std::str::from_utf8(line).ok()?.split_ascii_whitespace().collect();
    let [slot, local, remote, state, _, _, _, user, _, inode, ..] = fields[..] else { return None };
    slot.strip_suffix(':')?.parse::<u64>().ok()?;
    let wide = matches!(protocol, Protocol::Tcp6 | Protocol::Udp6 | Protocol::Raw6);
    let is_raw = matches!(protocol, Protocol::Raw | Protocol::Raw6);
    let is_tcp = matches!(protocol, Protocol::Tcp | Protocol::Tcp6);
    let state = *STATES.get(usize::from_str_radix(state, 16).ok()?)?;
    let remote = address(remote, wide)?;
    let nowhere = remote.ip().is_unspecified() && remote.port() == 0;
    Some(Socket {
        protocol,
        kind: match (is_tcp, is_raw) {
            (true, _) => "stream",
            (_, true) => "raw",
            _ => "datagram",
        },
        local: Address::Internet(address(local, wide)?),
        remote: if nowhere { Address::None } else { Address::Internet(remote) },
        // A socket that has no states of its own is only connected or not.
        state: if !is_tcp && state == "CLOSE" { "UNCONNECTED" } else { state },
        user: Some(user.parse().ok()?),
        inode: inode.parse().ok()?,
    })
}

/// Sockets without an address that could be told in a word: of these lines only the inode is read,
/// which is the last (netlink, packet), and of packet sockets kind and user.
fn kernels(protocol: Protocol, line: &[u8]) -> Option<Socket> {
    let fields: Vec<&str> = std::str::from_utf8(line).ok()?.split_ascii_whitespace().collect();
    let (kind, user) = match (protocol, fields.as_slice()) {
        (Protocol::Netlink, [_, _, _, _, _, _, _, _, _, _]) => ("raw", None),
        (Protocol::Packet, [_, _, kind, _, _, _, _, user, _]) => {
            (if *kind == "3" { "raw" } else { "datagram" }, Some(user.parse().ok()?))
        }
        _ => return None,
    };
    Some(Socket {
        protocol,
        kind,
        local: Address::None,
        remote: Address::None,
        state: "UNCONNECTED",
        user,
        inode: fields.last()?.parse().ok()?,
    })
}

/// An address in words of eight digits, each as the processor reads the bytes of the network, and a
/// port.
fn address(text: &str, wide: bool) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let digits = if wide { 32 } else { 8 };
    if address.len() != digits || !address.bytes().all(|it| it.is_ascii_hexdigit()) {
        return None;
    }
    let word = |at: usize| u32::from_str_radix(&address[8 * at..8 * at + 8], 16).map(u32::to_le_bytes).ok();
    let ip = if wide {
        let bytes: Vec<u8> = (0..4).filter_map(word).flatten().collect();
        IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?))
    } else {
        IpAddr::V4(Ipv4Addr::from(word(0)?))
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// The flag of a socket that listens (`__SO_ACCEPTCON`).
const LISTENS: u64 = 0x1_0000;

/// `SLOT: REFERENCES PROTOCOL FLAGS TYPE STATE INODE[ PATH]`.
fn local(line: &[u8]) -> Option<Socket> {
    let mut rest = line;
    let mut word = || {
        let begin = rest.iter().position(|&byte| byte != b' ')?;
        let end = rest[begin..].iter().position(|&byte| byte == b' ').map_or(rest.len(), |at| begin + at);
        let word = std::str::from_utf8(&rest[begin..end]).ok()?;
        rest = &rest[end..];
        Some(word)
    };
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let slot = word()?;
    let (references, protocol, flags) = (word()?, word()?, word()?);
    let (kind, state, inode) = (word()?, word()?, word()?);
    let slot = slot.strip_suffix(':')?;
    // Kernels print what they do not want to say in other ways, always without a space.
    let fits = !slot.is_empty() && [references, protocol].iter().all(|it| it.len() == 8 && hex(it).is_some());
    let state = match (hex(flags)? & LISTENS != 0, hex(state)?) {
        (true, _) => "LISTEN",
        (_, 0) => "FREE",
        (_, 1) => "UNCONNECTED",
        (_, 2) => "CONNECTING",
        (_, 3) => "CONNECTED",
        (_, 4) => "DISCONNECTING",
        _ => return None,
    };
    let kind = match hex(kind)? {
        1 => "stream",
        2 => "datagram",
        5 => "seqpacket",
        _ => return None,
    };
    let inode = inode.parse().ok()?;
    let local = match rest.strip_prefix(b" ") {
        Some(path) => Address::Path(path.to_vec()),
        None => Address::None,
    };
    fits.then_some(Socket {
        protocol: Protocol::Unix,
        kind,
        local,
        remote: Address::None,
        state,
        user: None,
        inode,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn internet(text: &str) -> Address {
        Address::Internet(text.parse().expect("an address"))
    }

    #[test]
    fn sockets_of_the_internet() {
        let text = b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n   \
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0  0 5234 1\n   \
            1: 0F02000A:0016 0202000A:D431 01 00000000:00000000 02:000A7D5B 00000000  1000        0 17 2\n\
            nonsense\n   2: 0100007F:1F9000 0:0 0A 0:0 0:0 0 0 0 1\n";
        let Sockets { sockets, strange } = Sockets::parse(Protocol::Tcp, text);
        assert_eq!((sockets.len(), strange), (2, 2));
        assert_eq!(sockets[0].local, internet("127.0.0.1:8080"));
        assert_eq!((&sockets[0].remote, sockets[0].state), (&Address::None, "LISTEN"));
        assert_eq!((&sockets[1].remote, sockets[1].state), (&internet("10.0.2.2:54321"), "ESTABLISHED"));
        assert_eq!((sockets[1].user, sockets[1].inode), (Some(1000), 17));

        let text = b"  sl\n   7: 00000000000000000000000001000000:0035 \
            00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000   101  0 9 2\n";
        let found = Sockets::parse(Protocol::Udp6, text);
        assert_eq!(found.sockets[0].local, internet("[::1]:53"));
        assert_eq!((found.sockets[0].state, found.sockets[0].kind), ("UNCONNECTED", "datagram"));
        assert_eq!(Sockets::parse(Protocol::Udp, text).strange, 1, "an address of another length");
        assert_eq!(Sockets::parse(Protocol::Tcp, b""), Sockets::default());
    }

    #[test]
    fn sockets_without_a_protocol() {
        let text = b"sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode\n\
            (____ptrval____) 0   0          00000000 0        0        0     2        0        16      \n\
            0000000000000000 15  236        00000002 0        0        0     2        0        5202    \nx\n";
        let found = Sockets::parse(Protocol::Netlink, text);
        let inodes: Vec<u64> = found.sockets.iter().map(|it| it.inode).collect();
        assert_eq!((inodes, found.strange), (vec![16, 5202], 1));
        let text = b"sk RefCnt Type Proto  Iface R Rmem   User   Inode\n\
            0000000000000000 3      3    0003   2     1 0      101    14000 \n";
        let found = Sockets::parse(Protocol::Packet, text);
        assert_eq!((found.sockets[0].kind, found.sockets[0].user), ("raw", Some(101)));
        assert_eq!((found.sockets[0].inode, found.strange), (14000, 0));
        let text =
            b"  sl\n    1: 00000000:0001 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 77 2\n";
        let found = Sockets::parse(Protocol::Raw, text);
        assert_eq!((found.sockets[0].kind, &found.sockets[0].local), ("raw", &internet("0.0.0.0:1")));
    }

    #[test]
    fn sockets_of_the_system() {
        let text = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            00000000aabbccdd: 00000002 00000000 00010000 0001 01  5000 /run/a b\n\
            (____ptrval____): 00000003 00000000 00000000 0005 03 5001\n\
            0000000000000000: 00000002 00000000 00000000 0002 01 15002 @name@\n";
        let Sockets { sockets, strange } = Sockets::parse(Protocol::Unix, text);
        assert_eq!((sockets.len(), strange), (3, 0));
        assert_eq!(sockets[0].local, Address::Path(b"/run/a b".to_vec()));
        assert_eq!((sockets[0].state, sockets[0].kind, sockets[0].inode), ("LISTEN", "stream", 5000));
        assert_eq!((sockets[1].state, &sockets[1].local), ("CONNECTED", &Address::None));
        assert_eq!((sockets[2].kind, &sockets[2].local), ("datagram", &Address::Path(b"@name@".to_vec())));
    }

    #[test]
    fn names_of_sockets_may_have_line_feeds() {
        let text = b"Num\n0000000000000000: 00000002 00000000 00010000 0001 01 7 @a\n\nb\xff\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 8 @c\n";
        let Sockets { sockets, strange } = Sockets::parse(Protocol::Unix, text);
        assert_eq!((sockets.len(), strange), (2, 0));
        assert_eq!(sockets[0].local, Address::Path(b"@a\n\nb\xff".to_vec()));
        assert_eq!(sockets[1].local, Address::Path(b"@c".to_vec()));
    }
}
