//! The devices of a stream, and among them its processors.
//!
//! A device's state has no size in the stream. Behind the end mark QEMU (since 2.2) writes a
//! description in JSON that names every field of every device with its size: by it devices are
//! walked, and the processors' registers are found by their fields' names, whatever a version of
//! QEMU added between them (`vmstate_x86_cpu` in QEMU's `target/i386/machine.c`). The walk has to
//! end exactly at the end mark.

use std::collections::HashMap;

use serde::Deserialize;

use super::fields::{Fields, number};
use crate::reg::Reg;
use crate::target::cpu::{Cpu, MAX_CPUS, SEGMENTS};

/// Bytes that a description may have; some 50 KB are usual for each processor.
const MAX_DESCRIPTION: usize = 16 << 20;
/// What begins it: the end mark, its kind.
const BEGIN: [u8; 2] = [0, 6];

/// What the stream says of its devices, in their order.
#[derive(Deserialize, Debug)]
pub(super) struct Description {
    devices: Vec<Device>,
    /// Place of the end mark.
    #[serde(skip)]
    pub(super) end: usize,
}

#[derive(Deserialize, Debug)]
struct Device {
    name: String,
    #[serde(default)]
    instance_id: u32,
    #[serde(flatten)]
    state: State,
}

/// Fields one behind the other, then parts that may be missing.
#[derive(Deserialize, Debug)]
struct State {
    #[serde(default)]
    fields: Vec<Field>,
    #[serde(default)]
    subsections: Vec<Subsection>,
}

#[derive(Deserialize, Debug)]
struct Field {
    name: String,
    size: u64,
    /// Elements that are alike.
    array_len: Option<u64>,
    /// Which element it is.
    index: Option<u64>,
    #[serde(rename = "struct")]
    inner: Option<State>,
}

#[derive(Deserialize, Debug)]
struct Subsection {
    vmsd_name: String,
    #[serde(flatten)]
    state: State,
}

impl State {
    /// Bytes it takes.
    fn size(&self) -> Option<u64> {
        let fields = self.fields.iter().map(|field| field.size.checked_mul(field.array_len.unwrap_or(1)));
        // Its kind, its name with the name's length, and its version.
        let parts =
            self.subsections.iter().map(|it| it.state.size()?.checked_add(6 + it.vmsd_name.len() as u64));
        fields.chain(parts).try_fold(0u64, |sum, size| sum.checked_add(size?))
    }
}

impl Description {
    /// The description at the end of a stream, if it has one.
    ///
    /// It is looked for from the end: where the end mark is followed by a size that reaches exactly
    /// to the end of the bytes. A guest cannot plant one in its devices' state, since the zero in
    /// the real one's beginning is in no JSON.
    pub(super) fn find(bytes: &[u8]) -> Option<Self> {
        let least = bytes.len().saturating_sub(MAX_DESCRIPTION);
        let at = (least..bytes.len().checked_sub(8)?).rev().find(|&at| {
            bytes[at..].starts_with(&BEGIN)
                && number(&bytes[at + 2..at + 6]) == (bytes.len() - at - 6) as u64
                && bytes[at + 6] == b'{'
        })?;
        let mut description: Self = serde_json::from_slice(&bytes[at + 6..]).ok()?;
        description.end = at;
        Some(description)
    }

    /// The state of the next device, `index`, if its section's header is of that device.
    pub(super) fn state<'a>(
        &self,
        index: usize,
        name: &[u8],
        instance: u32,
        fields: &mut Fields<'a>,
    ) -> Option<&'a [u8]> {
        let device = self.devices.get(index)?;
        if device.name.as_bytes() != name || device.instance_id != instance {
            return None;
        }
        fields.take(device.state.size()?)
    }

    /// The processor whose state the device `index` has, if it is one.
    pub(super) fn cpu(&self, index: usize, state: &[u8]) -> Option<Cpu> {
        let device = self.devices.get(index).filter(|device| device.name == "cpu")?;
        let mut values = HashMap::new();
        collect("", &device.state, state, &mut values);
        cpu(&values)
    }

    /// How many devices there are, and how many of them are processors.
    pub(super) fn counts(&self) -> (usize, usize) {
        let cpus = self.devices.iter().filter(|device| device.name == "cpu").count();
        (self.devices.len(), cpus.min(MAX_CPUS + 1))
    }
}

/// Notes every number of a state under its path.
fn collect(path: &str, state: &State, bytes: &[u8], values: &mut HashMap<String, u64>) {
    let mut rest = Fields::new(bytes, 0);
    for field in state.fields.iter().filter(|field| field.size != 0) {
        for index in 0..field.array_len.unwrap_or(1) {
            let Some(part) = rest.take(field.size) else { return };
            let path = match field.index.or(field.array_len.map(|_| index)) {
                Some(index) => format!("{path}{}[{index}]", field.name),
                None => format!("{path}{}", field.name),
            };
            match &field.inner {
                Some(inner) => collect(&format!("{path}."), inner, part, values),
                None if part.len() <= 8 => drop(values.insert(path, number(part))),
                None => {}
            }
        }
    }
}

/// Registers and the fields that hold them.
const REGISTERS: [(Reg, &str); 19] = [
    (Reg::Rip, "env.eip"),
    (Reg::Cr0, "env.cr[0]"),
    (Reg::Cr2, "env.cr[2]"),
    (Reg::Cr3, "env.cr[3]"),
    (Reg::Cr4, "env.cr[4]"),
    (Reg::Efer, "env.efer"),
    (Reg::Star, "env.star"),
    (Reg::Lstar, "env.lstar"),
    (Reg::Cstar, "env.cstar"),
    (Reg::Sfmask, "env.fmask"),
    (Reg::KernelGsBase, "env.kernelgsbase"),
    (Reg::SysenterCs, "env.sysenter_cs"),
    (Reg::SysenterEsp, "env.sysenter_esp"),
    (Reg::SysenterEip, "env.sysenter_eip"),
    (Reg::TscAux, "env.tsc_aux"),
    (Reg::Xcr0, "env.xcr0"),
    (Reg::Mxcsr, "env.mxcsr"),
    (Reg::Fcw, "env.fpuc"),
    (Reg::Fsw, "env.fpus_vmstate"),
];

/// The fields of the segments, in the order of [`SEGMENTS`].
const SEGMENT_FIELDS: [&str; 10] = [
    "env.segs[1]",
    "env.segs[3]",
    "env.segs[0]",
    "env.segs[4]",
    "env.segs[5]",
    "env.segs[2]",
    "env.ldt",
    "env.tr",
    "env.gdt",
    "env.idt",
];

/// The processor with these fields; `None` if one is missing without which nothing runs.
fn cpu(values: &HashMap<String, u64>) -> Option<Cpu> {
    let mut cpu = Cpu::default();
    for n in 0..16 {
        if let Some(&value) = values.get(&format!("env.regs[{n}]")) {
            cpu.regs.set(Reg::gpr(n), value);
        }
    }
    for (reg, field) in REGISTERS {
        if let Some(&value) = values.get(field) {
            cpu.regs.set(reg, value);
        }
    }
    for (segment, field) in SEGMENTS.iter().zip(SEGMENT_FIELDS) {
        let parts = [
            (segment.selector, "selector"),
            (Some(segment.base), "base"),
            (Some(segment.limit), "limit"),
            (segment.flags, "flags"),
        ];
        for (reg, part) in parts {
            if let (Some(reg), Some(&value)) = (reg, values.get(&format!("{field}.{part}"))) {
                cpu.regs.set(reg, value);
            }
        }
    }
    cpu.set_rflags(*values.get("env.eflags")?);
    let needed = [Reg::Cr0, Reg::Cr3, Reg::Cr4, Reg::GsBase, Reg::IdtrBase, Reg::CsFlags];
    needed.iter().all(|&reg| cpu.regs.get(reg).is_some()).then_some(cpu)
}
