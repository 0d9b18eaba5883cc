//! `virtuoso sockets`: TCP, UDP, UNIX and other sockets with the processes that hold them.

use std::collections::BTreeMap;

use clap::Args;
use engine::Text;
use filetree::{Error, Tree, join};
use linux::procfs::{Address, Protocol, Socket, Sockets, number_in_link};
use serde_json::{Value, json};

use crate::columns::Columns;
use crate::commands::files::Failures;
use crate::context::Context;
use crate::failure::Failure;
use crate::format;
use crate::guest_tree::{TreeArgs, failure};
use crate::output;
use crate::processes::{ENOENT, Unread, grouped, name, path, pids, text};

/// List the sockets of the guest, with the processes that hold them
///
/// TCP, UDP and raw sockets of IPv4 and IPv6, UNIX, netlink and packet sockets of every network
/// namespace that a process is in, as /proc/PID/net tells them; the processes are those with a
/// descriptor of the socket. A socket that a process holds and that is in none of these files is
/// listed as `other`: rarer kinds are, and what somebody hides. What cannot be read is named on
/// standard error, and the exit code is that of the first.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  virtuoso sockets guest.elf
  virtuoso sockets qmp:/run/guest.qmp --json | jq '.sockets[] | select(.state == \"LISTEN\")'")]
pub struct SocketsArgs {
    #[command(flatten)]
    tree: TreeArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// A process that has a descriptor of a socket.
struct Holder {
    pid: u64,
    name: Option<Text>,
    descriptor: u64,
}

/// A socket, where it was found and who holds it.
struct Row {
    /// Its network namespace's number; none where only a process tells of it.
    namespace: Option<u64>,
    /// What the namespace's file says; none where no file has it.
    socket: Option<Socket>,
    inode: u64,
    holders: Vec<Holder>,
}

/// All sockets, and what could not be read.
#[derive(Default)]
struct Found {
    rows: Vec<Row>,
    /// By process.
    failures: Vec<(u64, Failure)>,
}

impl SocketsArgs {
    /// Runs the verb.
    pub fn run(&self, context: Context) -> Result<(), Failure> {
        // A live guest runs again before anything is printed.
        let found = self.tree.ask(context, |tree, _| Found::ask(tree))?;
        if self.json {
            let rows: Vec<Value> = found.rows.iter().map(Row::json).collect();
            let errors: Vec<String> = found.failures.iter().map(|(_, failure)| failure.to_string()).collect();
            output::json(&json!({ "sockets": rows, "errors": errors }))?;
        } else {
            found.print()?;
        }
        let mut failures = Failures::default();
        let all = found.failures.iter().map(|(pid, failure)| (*pid, failure));
        grouped(all).iter().for_each(|failure| failures.add(failure));
        failures.end()
    }
}

/// All sockets as JSON; what cannot be read is added to `failures`, by process.
///
/// # Errors
/// The processes cannot be listed.
pub fn collect(tree: &Tree<'_>, failures: &mut Unread) -> Result<Vec<Value>, Failure> {
    let found = Found::ask(tree)?;
    failures.extend(found.failures);
    Ok(found.rows.iter().map(Row::json).collect())
}

impl Found {
    fn ask(tree: &Tree<'_>) -> Result<Self, Failure> {
        let mut found = Self::default();
        let mut holders: BTreeMap<u64, Vec<Holder>> = BTreeMap::new();
        // A process of each network namespace, by which its files are reached.
        let mut namespaces: BTreeMap<u64, u64> = BTreeMap::new();
        for pid in pids(tree)? {
            match tree.link(&path(pid, "ns/net")) {
                Ok(link) => {
                    if let Some(number) = number_in_link(&link, "net") {
                        namespaces.entry(number).or_insert(pid);
                    }
                }
                // What has ended is in none.
                Err(Error::Guest(ENOENT)) => {}
                Err(error) => found.failures.push((pid, failure(&path(pid, "ns/net"), &error))),
            }
            found.descriptors(tree, pid, &mut holders);
        }
        for (&namespace, &pid) in &namespaces {
            for protocol in Protocol::ALL {
                found.sockets(tree, (namespace, pid), protocol, &mut holders);
            }
        }
        for (inode, holders) in holders {
            found.rows.push(Row { namespace: None, socket: None, inode, holders });
        }
        Ok(found)
    }

    /// Which sockets a process has open.
    fn descriptors(&mut self, tree: &Tree<'_>, pid: u64, holders: &mut BTreeMap<u64, Vec<Holder>>) {
        let directory = path(pid, "fd");
        let entries = match tree.entries(&directory) {
            Ok(entries) => entries,
            Err(error) => return self.failures.push((pid, failure(&directory, &error))),
        };
        let mut known: Option<Option<Text>> = None;
        for entry in entries {
            let link = join(&directory, &entry.name);
            let inode = match tree.link(&link) {
                Ok(target) => number_in_link(&target, "socket"),
                Err(error) => {
                    self.failures.push((pid, failure(&link, &error)));
                    continue;
                }
            };
            let descriptor = std::str::from_utf8(&entry.name).ok().and_then(|name| name.parse().ok());
            if let (Some(inode), Some(descriptor)) = (inode, descriptor) {
                let name = known.get_or_insert_with(|| name(tree, pid).ok()).clone();
                holders.entry(inode).or_default().push(Holder { pid, name, descriptor });
            }
        }
    }

    /// The sockets of one kind in a namespace that process `pid` is in.
    fn sockets(
        &mut self,
        tree: &Tree<'_>,
        (namespace, pid): (u64, u64),
        protocol: Protocol,
        holders: &mut BTreeMap<u64, Vec<Holder>>,
    ) {
        let file = join(&path(pid, "net"), protocol.name().as_bytes());
        let bytes = match text(tree, &file) {
            Ok(bytes) => bytes,
            // The system may be without IPv6.
            Err(Error::Guest(ENOENT)) => return,
            Err(error) => return self.failures.push((pid, failure(&file, &error))),
        };
        let Sockets { sockets, strange } = Sockets::parse(protocol, &bytes);
        if strange > 0 {
            let lines = format::counted(strange, "line");
            let error = Error::Nonsense(format!("{lines} of it name no socket"));
            self.failures.push((pid, failure(&file, &error)));
        }
        for socket in sockets {
            let inode = socket.inode;
            // 0 is the inode of all that have none any more.
            let holders = if inode == 0 { None } else { holders.remove(&inode) };
            if protocol == Protocol::Netlink && holders.is_none() {
                // The kernel's own ends.
                continue;
            }
            let (namespace, holders) = (Some(namespace), holders.unwrap_or_default());
            self.rows.push(Row { namespace, socket: Some(socket), inode, holders });
        }
    }

    fn print(&self) -> Result<(), Failure> {
        let first = self.rows.first().and_then(|row| row.namespace);
        let several = self.rows.iter().any(|row| row.namespace.is_some() && row.namespace != first);
        let mut heads = vec!["PROTOCOL", "STATE", "LOCAL", "REMOTE", ">UID", ">INODE", "PROCESSES"];
        if several {
            heads.insert(6, ">NAMESPACE");
        }
        let mut columns = Columns::new(&heads);
        for row in &self.rows {
            let dash = || "-".to_owned();
            let mut cells = match &row.socket {
                Some(socket) => vec![
                    match socket.protocol {
                        Protocol::Unix => format!("unix {}", socket.kind),
                        other => other.name().to_owned(),
                    },
                    socket.state.to_owned(),
                    shown(&socket.local),
                    shown(&socket.remote),
                    socket.user.map_or_else(dash, |user| user.to_string()),
                ],
                None => vec!["other".to_owned(), dash(), dash(), dash(), dash()],
            };
            cells.push(row.inode.to_string());
            if several {
                cells.push(row.namespace.map_or_else(dash, |number| number.to_string()));
            }
            let holder = |it: &Holder| {
                let name = it.name.as_ref().map_or_else(|| "?".to_owned(), format::shown);
                format!("{}/{name} fd {}", it.pid, it.descriptor)
            };
            let holders: Vec<String> = row.holders.iter().map(holder).collect();
            cells.push(if holders.is_empty() { dash() } else { holders.join(", ") });
            columns.add(cells);
        }
        columns.print()
    }
}

impl Row {
    fn json(&self) -> Value {
        let holder = |it: &Holder| json!({ "pid": it.pid, "name": it.name, "descriptor": it.descriptor });
        let holders: Vec<Value> = self.holders.iter().map(holder).collect();
        let socket = self.socket.as_ref();
        json!({
            "protocol": socket.map_or("other", |it| it.protocol.name()),
            "kind": socket.map(|it| it.kind),
            "state": socket.map(|it| it.state),
            "local": socket.and_then(|it| address(&it.local)),
            "remote": socket.and_then(|it| address(&it.remote)),
            "uid": socket.and_then(|it| it.user),
            "inode": self.inode,
            "namespace": self.namespace,
            "processes": holders,
        })
    }
}

fn address(address: &Address) -> Option<Value> {
    match address {
        Address::Internet(address) => {
            Some(json!({ "address": address.ip().to_string(), "port": address.port() }))
        }
        Address::Path(path) => Some(json!({ "path": Text(path.clone()) })),
        Address::None => None,
    }
}

fn shown(address: &Address) -> String {
    match address {
        Address::Internet(address) => address.to_string(),
        Address::Path(path) => format::shown(&Text(path.clone())),
        Address::None => "-".to_owned(),
    }
}
