//! Processor state as JSON: the side file of raw RAM, and what `target info --json` prints.
//!
//! `{"cpus": [{"rax": "0x1", ..., "rip": .., "rflags": .., "cs": {"selector", "limit", "flags",
//! "base"}, ..., "gdt": {"limit", "base"}, "cr0": .., "efer": .., "kernel_gs_base": ..}]}`. Numbers
//! are strings (`"0x.."` or decimal), since JSON's own are not exact beyond 2^53; whole JSON
//! numbers are understood as well. Segments are `cs ds es fs gs ss ldt tr`, tables `gdt idt`; a
//! segment's `flags` are the upper half of its descriptor. Any register of the register table may
//! appear under its name. Registers that are left out are unknown; names that are not known are
//! refused, because a misspelt register would otherwise be missing unnoticed.

use serde_json::{Map, Value};

use super::cpu::{Cpu, MAX_CPUS, SEGMENTS, SegmentRegs};
use crate::reg::{RFLAGS_FIELDS, Reg};

/// Registers without which nothing can run on a processor.
const REQUIRED: [Reg; 4] = [Reg::Rip, Reg::Cr0, Reg::Cr3, Reg::Cr4];

/// Why JSON is not processor state.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// No JSON.
    #[error("{0}")]
    Syntax(serde_json::Error),
    /// Larger than any such file.
    #[error("it is larger than {limit} bytes")]
    TooLarge {
        /// Bytes accepted.
        limit: u64,
    },
    /// There is no list of processors.
    #[error("there is no list \"cpus\"")]
    NoList,
    /// The list of processors is empty.
    #[error("the list \"cpus\" is empty")]
    NoCpus,
    /// The list is longer than any machine's.
    #[error("there are {0} processors; at most {MAX_CPUS} are accepted")]
    TooManyCpus(usize),
    /// A processor or segment is not an object.
    #[error("{0} is not an object")]
    NotAnObject(String),
    /// A name that means nothing.
    #[error("{0} is not a known register")]
    UnknownName(String),
    /// A value that is no number of 64 bits.
    #[error("{name} is {value}, not a 64-bit number such as \"0x1f\"")]
    BadNumber {
        /// The register or field.
        name: String,
        /// What it is, cut to a readable length.
        value: String,
    },
    /// A register that must be there is not.
    #[error("processor {cpu} has no {register}")]
    Missing {
        /// Number of the processor, from 0.
        cpu: usize,
        /// Name of the register.
        register: &'static str,
    },
}

/// The processors of a JSON document; at least one.
pub fn parse_cpus(text: &[u8]) -> Result<Vec<Cpu>, JsonError> {
    let document: Value = serde_json::from_slice(text).map_err(JsonError::Syntax)?;
    let list = document.get("cpus").and_then(Value::as_array).ok_or(JsonError::NoList)?;
    match list.len() {
        0 => Err(JsonError::NoCpus),
        n if n > MAX_CPUS => Err(JsonError::TooManyCpus(n)),
        _ => list.iter().enumerate().map(|(i, value)| parse_cpu(i, value)).collect(),
    }
}

fn parse_cpu(index: usize, value: &Value) -> Result<Cpu, JsonError> {
    let fields = value.as_object().ok_or_else(|| JsonError::NotAnObject(format!("processor {index}")))?;
    let mut cpu = Cpu::default();
    let mut rflags = None;
    for (name, value) in fields {
        if let Some(segment) =
            SEGMENTS.iter().find(|s| (s.name == name || s.alias == name) && value.is_object())
        {
            parse_segment(&mut cpu, segment, name, value)?;
        } else if name == "rflags" || name == "eflags" {
            rflags = Some(number(name, value)?);
        } else {
            let reg = register(name).ok_or_else(|| JsonError::UnknownName(short(name)))?;
            cpu.regs.set(reg, number(name, value)?);
        }
    }
    if let Some(&missing) = REQUIRED.iter().find(|&&reg| cpu.regs.get(reg).is_none()) {
        return Err(JsonError::Missing { cpu: index, register: missing.name() });
    }
    if let Some(rflags) = rflags {
        let stated = cpu.regs.get(Reg::Cpl);
        cpu.set_rflags(rflags);
        if let Some(cpl) = stated {
            cpu.regs.set(Reg::Cpl, cpl);
        }
    }
    Ok(cpu)
}

fn parse_segment(cpu: &mut Cpu, segment: &SegmentRegs, name: &str, value: &Value) -> Result<(), JsonError> {
    for (field, value) in value.as_object().into_iter().flatten() {
        let full = format!("{name}.{}", short(field));
        let reg = match field.as_str() {
            "selector" => segment.selector,
            "flags" => segment.flags,
            "limit" => Some(segment.limit),
            "base" => Some(segment.base),
            _ => return Err(JsonError::UnknownName(full)),
        };
        let value = number(&full, value)?;
        // The tables have neither selector nor flags; QEMU writes both as 0.
        if let Some(reg) = reg {
            cpu.regs.set(reg, value);
        }
    }
    Ok(())
}

fn register(name: &str) -> Option<Reg> {
    Reg::NAMES.iter().position(|&known| known == name).and_then(Reg::from_index)
}

fn number(name: &str, value: &Value) -> Result<u64, JsonError> {
    let parsed = match value {
        Value::String(text) => match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16).ok(),
            Some(_) => None,
            None => text.parse().ok(),
        },
        other => other.as_u64(),
    };
    parsed.ok_or_else(|| JsonError::BadNumber { name: short(name), value: short(&value.to_string()) })
}

/// Text for a message: untrusted, so cut and without control characters.
fn short(text: &str) -> String {
    text.chars().take(40).map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// One processor as a JSON object; registers that are unknown are left out.
#[must_use]
pub fn cpu_json(cpu: &Cpu) -> String {
    cpu_value(cpu).to_string()
}

/// Processors as a whole side file, which [`parse_cpus`] reads back to the same.
#[must_use]
pub fn cpus_json(cpus: &[Cpu]) -> String {
    let list = cpus.iter().map(cpu_value).collect();
    Value::Object(Map::from_iter([("cpus".to_owned(), Value::Array(list))])).to_string()
}

fn cpu_value(cpu: &Cpu) -> Value {
    let mut fields = Map::new();
    let mut done = [false; Reg::COUNT];
    for segment in SEGMENTS {
        let parts = [
            ("selector", segment.selector),
            ("limit", Some(segment.limit)),
            ("flags", segment.flags),
            ("base", Some(segment.base)),
        ];
        let mut object = Map::new();
        for (name, reg) in parts.into_iter().filter_map(|(name, reg)| Some((name, reg?))) {
            done[reg.index()] = true;
            if let Some(value) = cpu.regs.get(reg) {
                object.insert(name.to_owned(), hex(value));
            }
        }
        if !object.is_empty() {
            fields.insert(segment.name.to_owned(), Value::Object(object));
        }
    }
    // An image has a value for every flag, so it stands only for flags that are all known.
    if RFLAGS_FIELDS.iter().all(|&(reg, ..)| cpu.regs.get(reg).is_some()) {
        fields.insert("rflags".to_owned(), hex(cpu.regs.rflags()));
        RFLAGS_FIELDS.iter().for_each(|&(reg, ..)| done[reg.index()] = true);
    }
    for (reg, value) in cpu.regs.known().filter(|&(reg, _)| !done[reg.index()]) {
        fields.insert(reg.name().to_owned(), hex(value));
    }
    Value::Object(fields)
}

fn hex(value: u64) -> Value {
    Value::String(format!("{value:#x}"))
}
