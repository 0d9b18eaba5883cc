//! A dependence graph from text: what dumps print, and the code that nobody executed.
//!
//! ```text
//! entries 0x2000
//! pseudo 0x1040
//! context c0 entry 0x1000 called at 0x0ff0 in c1 saves rbx,rbp delta 8
//!   site 0x1000+4
//!     rax = load.64 rdi ; local -8; criterion; uses 0x0ffc.1
//!     next 0x1004
//!     calls 0x2000 as c1
//!     goes on at 0x3000 as c2
//!     returns
//!     ends at 0x1040
//! unseen 0x1010+2
//!     rax = mov.64 0x0
//! ```
//!
//! Operations are named by context, address and index; without a context it is the site's own. An
//! operation counts as executed unless it says `not executed`.

use ir::{Class, Op};
use machine::{Reg, VirtAddr};

use super::Unusable;
use super::code::UnseenCode;
use crate::context::contexts::ContextKey;
use crate::context::{Contexts, Convention, Entries};
use crate::dependence::graph::{Body, End};
use crate::dependence::{Graph, Locals};
use crate::vocabulary::{Code, CodeTable, ContextId, Id, OpId, RegisterSet, STACK_POINTER, SiteId, Table};

/// What the text says.
pub struct Parsed {
    pub graph: Graph,
    pub code: CodeTable,
    pub contexts: Contexts,
    pub unseen: UnseenCode,
}

/// An instruction as it stands in the text.
struct Listed<'t> {
    context: Option<ContextId>,
    pc: VirtAddr,
    len: u8,
    ops: Vec<(Op, Vec<&'t str>)>,
    flow: Vec<&'t str>,
}

/// A number in the form of dumps.
pub fn number(text: &str) -> Result<u64, Unusable> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("{text} is no number"))
}

pub fn address(text: &str) -> Result<VirtAddr, Unusable> {
    number(text).map(VirtAddr)
}

fn context_id(text: &str) -> Result<ContextId, Unusable> {
    Ok(ContextId::new(number(text.strip_prefix('c').unwrap_or(text))? as usize))
}

fn registers(text: &str) -> Result<RegisterSet, Unusable> {
    if text == "all" {
        return Ok(RegisterSet::ALL);
    }
    let named = text.split(',').map(|name| {
        let reg = Reg::ALL.iter().find(|reg| reg.name() == name);
        reg.map(|&reg| ir::Var(reg as u16)).ok_or(format!("{name} is no register"))
    });
    named.collect()
}

/// Reads a graph.
pub fn parse(lines: &[String]) -> Result<Parsed, Unusable> {
    let (mut entries, mut pseudo, mut keys, mut conventions) =
        (Vec::new(), Vec::new(), Vec::new(), Table::new());
    let mut listed: Vec<Listed<'_>> = Vec::new();
    for line in lines.iter().map(|line| line.trim()).filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["entries", rest @ ..] => entries.extend(addresses(rest)?),
            ["pseudo", rest @ ..] => pseudo.extend(addresses(rest)?),
            ["context", name, rest @ ..] => {
                if *name != format!("c{}", keys.len()) {
                    return Err(format!("{line}: contexts are numbered in their order, from c0"));
                }
                let (key, convention) = context(rest)?;
                keys.push(key);
                conventions.push(convention);
            }
            ["site" | "unseen", place] => {
                let (pc, len) = place.split_once('+').ok_or(format!("{place}: no length"))?;
                let own = words[0] == "site";
                let context = own.then(|| ContextId::new(keys.len() - 1));
                let (pc, len) = (address(pc)?, number(len)? as u8);
                listed.push(Listed { context, pc, len, ops: Vec::new(), flow: Vec::new() });
            }
            _ => {
                let last = listed.last_mut().ok_or(format!("{line}: before any site"))?;
                match ir::text::parse_op(operation(line), Reg::NAMES) {
                    Ok(op) => {
                        let notes = line.split_once(" ; ").map_or("", |it| it.1);
                        last.ops.push((op, notes.split("; ").map(str::trim).collect()));
                    }
                    Err(_) if last.context.is_some() => last.flow.push(line),
                    Err(error) => return Err(format!("{line}: {error}")),
                }
            }
        }
    }
    let mut contexts = Contexts::new(Entries::known(entries, pseudo));
    for key in keys {
        contexts.intern(key);
    }
    Builder::new(contexts, conventions, &listed).build(&listed)
}

/// The operation of a line, without star and notes.
fn operation(line: &str) -> &str {
    let line = line.strip_prefix("* ").unwrap_or(line);
    line.split_once(" ; ").map_or(line, |it| it.0)
}

fn addresses(words: &[&str]) -> Result<Vec<VirtAddr>, Unusable> {
    words.iter().map(|word| address(word)).collect()
}

fn context(words: &[&str]) -> Result<(ContextKey, Convention), Unusable> {
    let mut key = ContextKey { entry: VirtAddr(0), call: None, parent: None };
    let mut convention = Convention::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let value =
            if *word == "called" { "" } else { words.next().ok_or(format!("{word}: nothing follows"))? };
        match *word {
            "entry" => key.entry = address(value)?,
            "at" => key.call = Some(address(value)?),
            "in" => key.parent = Some(context_id(value)?),
            "saves" => convention.callee_saved = registers(value)?,
            "delta" => {
                convention.stack_delta = value.parse().map_err(|_| format!("{value} is no delta"))?;
                convention.callee_saved.insert(STACK_POINTER);
            }
            "called" => {}
            other => return Err(format!("{other}: not a word of contexts")),
        }
    }
    Ok((key, convention))
}

struct Builder {
    parsed: Parsed,
    /// Sites by their place in the list.
    sites: Vec<Option<SiteId>>,
}

impl Builder {
    /// All sites, without edges.
    fn new(contexts: Contexts, conventions: Table<ContextId, Convention>, listed: &[Listed<'_>]) -> Self {
        let (graph, code) = (Graph::new(false, conventions), CodeTable::default());
        let mut parsed = Parsed { graph, code, contexts, unseen: UnseenCode::default() };
        let mut sites = Vec::new();
        for it in listed {
            let ops: Vec<Op> = it.ops.iter().map(|(op, _)| *op).collect();
            let insn = lift::Insn { pc: it.pc.0, len: it.len, ops };
            let Some(context) = it.context else {
                parsed.unseen.insert(insn);
                sites.push(None);
                continue;
            };
            let (count, bytes) = (insn.ops.len(), vec![0x90; usize::from(it.len)]);
            let insn = parsed.code.add(Code { insn, bytes, mode: lift::Mode::Bits64 });
            let site = parsed.graph.site(context, Body::Insn(insn), count);
            parsed.graph.mark_executed(site);
            sites.push(Some(site));
        }
        Self { parsed, sites }
    }

    fn build(mut self, listed: &[Listed<'_>]) -> Result<Parsed, Unusable> {
        for (it, site) in listed.iter().zip(self.sites.clone()) {
            let (Some(context), Some(site)) = (it.context, site) else { continue };
            for (at, (_, notes)) in it.ops.iter().enumerate() {
                let op = self.parsed.graph.sites[site].op(at);
                for note in notes.iter().filter(|note| !note.is_empty()) {
                    self.note(context, op, note)?;
                }
            }
            let control = it.ops.iter().rposition(|(op, _)| op.class() == Class::Control);
            let control = control.map(|at| self.parsed.graph.sites[site].op(at));
            for line in &it.flow {
                self.flow(context, site, control, line)?;
            }
        }
        Ok(self.parsed)
    }

    /// A site by context and address.
    fn site(&self, context: ContextId, pc: VirtAddr) -> Result<SiteId, Unusable> {
        let graph = &self.parsed.graph;
        let sites = &graph.contexts[context].sites;
        let at = |site: &&SiteId| graph.code(&self.parsed.code, **site).is_some_and(|code| code.pc() == pc);
        sites.iter().find(at).copied().ok_or(format!("{context}:{pc:#x} is no site"))
    }

    fn op(&self, context: ContextId, name: &str) -> Result<OpId, Unusable> {
        op(&self.parsed, context, name)
    }

    fn note(&mut self, context: ContextId, op: OpId, note: &str) -> Result<(), Unusable> {
        let words: Vec<&str> = note.split_whitespace().collect();
        match words.as_slice() {
            ["local", distance] => {
                let distance = distance.parse().map_err(|_| format!("{distance} is no distance"))?;
                self.parsed.graph.locals.insert(op, Locals::At(distance));
            }
            ["stack", distance] => {
                let distance = distance.parse().map_err(|_| format!("{distance} is no distance"))?;
                let site = self.parsed.graph.op_site[op];
                self.parsed.graph.depths[site] = Some(Locals::At(distance));
            }
            ["own"] => _ = self.parsed.graph.own.insert(op),
            ["varying"] => _ = self.parsed.graph.locals.insert(op, Locals::Varying),
            ["not", "executed"] => self.parsed.graph.executed[op] = false,
            ["criterion"] => _ = self.parsed.graph.criteria.insert(op),
            ["declared", from, to] => {
                let declared = (address(from)?.0, address(to)?.0);
                self.parsed.graph.declared.insert(declared);
            }
            ["from", at] => _ = self.parsed.graph.addresses.insert(op, address(at)?),
            ["uses", definers @ ..] => {
                for definer in definers {
                    let definer = self.op(context, definer)?;
                    self.parsed.graph.edge(op, definer);
                }
            }
            _ => return Err(format!("{note}: not known of operations")),
        }
        Ok(())
    }

    fn flow(
        &mut self,
        context: ContextId,
        site: SiteId,
        control: Option<OpId>,
        line: &str,
    ) -> Result<(), Unusable> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["next", rest @ ..] => {
                for pc in addresses(rest)? {
                    let next = self.site(context, pc)?;
                    self.parsed.graph.flow[site].add_next(next);
                }
            }
            ["calls", pc, "as", callee] => {
                let callee = context_id(callee)?;
                self.parsed.graph.flow[site].add_call(address(pc)?, callee);
                self.parsed.graph.contexts[callee].call_sites.extend(control);
            }
            ["goes", "on", "at", pc, "as", tail] => {
                let tail = context_id(tail)?;
                self.parsed.graph.flow[site].add_tail(address(pc)?, tail);
                self.parsed.graph.contexts[tail].call_sites.extend(control);
            }
            ["returns"] => self.parsed.graph.flow[site].returns = true,
            ["ends", "at", pc] => self.parsed.graph.end = Some(End { site, pc: address(pc)? }),
            _ => return Err(format!("{line}: neither an operation nor a way on")),
        }
        Ok(())
    }
}

/// An operation by its name; without a context it is one of `context`.
pub fn op(parsed: &Parsed, context: ContextId, name: &str) -> Result<OpId, Unusable> {
    let (context, place) = match name.split_once(':') {
        Some((context, place)) => (context_id(context)?, place),
        None => (context, name),
    };
    let (pc, index) = place.split_once('.').ok_or(format!("{name}: no index"))?;
    let pc = address(pc)?;
    let graph = &parsed.graph;
    let at = |site: &&SiteId| graph.code(&parsed.code, **site).is_some_and(|code| code.pc() == pc);
    let site = graph.contexts[context].sites.iter().find(at).ok_or(format!("{name}: no such site"))?;
    Ok(graph.sites[*site].op(number(index)? as usize))
}
