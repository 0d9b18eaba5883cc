//! A writer of migration streams, from the description of their format.

use std::fmt::Write;

/// What a record of RAM says of one page.
#[derive(Clone, Debug)]
pub enum Record {
    /// Its bytes.
    Page(Vec<u8>),
    /// One byte again and again.
    Filled(u8),
}

/// A stream to write.
#[derive(Clone, Debug)]
pub struct Stream {
    pub machine: &'static str,
    /// Names and sizes.
    pub blocks: Vec<(&'static str, u64)>,
    /// Sections of RAM: in each the block, the page's number in it, and the page.
    pub sections: Vec<Vec<(usize, u64, Record)>>,
    /// For each processor a number that its registers differ by.
    pub cpus: Vec<u64>,
    /// State of a device that comes before the processors.
    pub device: Vec<u8>,
    pub description: bool,
}

impl Stream {
    /// RAM of this many pages in one block, each with its own bytes.
    pub fn new(machine: &'static str, pages: u64, memory: &[u8]) -> Self {
        let page = |n: u64| Record::Page(memory[n as usize * 4096..][..4096].to_vec());
        Self {
            machine,
            blocks: vec![("pc.ram", pages * 4096), ("pc.bios", 0x2000)],
            sections: vec![(0..pages).map(|n| (0, n, page(n))).collect()],
            cpus: vec![1, 2],
            device: b"a device's state".to_vec(),
            description: true,
        }
    }

    /// The bytes of the stream; and where its RAM is complete.
    pub fn bytes(&self) -> (Vec<u8>, usize) {
        let mut out = b"QEVM\0\0\0\x03\x07".to_vec();
        out.extend((self.machine.len() as u32).to_be_bytes());
        out.extend(self.machine.as_bytes());
        subsection(
            &mut out,
            "configuration/capabilities",
            &[0, 0, 0, 1, 6, b'e', b'v', b'e', b'n', b't', b's'],
        );
        section(&mut out, 1, 2, "ram", 4);
        let total: u64 = self.blocks.iter().map(|block| block.1).sum();
        out.extend((total | 4).to_be_bytes());
        for (name, size) in &self.blocks {
            self.name(&mut out, name);
            out.extend(size.to_be_bytes());
        }
        done(&mut out, 2);
        let last = self.sections.len().saturating_sub(1);
        for (number, records) in self.sections.iter().enumerate() {
            out.push(if number == last { 3 } else { 2 });
            out.extend(2u32.to_be_bytes());
            self.records(&mut out, records);
            done(&mut out, 2);
        }
        let complete = out.len();
        let mut devices = Vec::new();
        section(&mut out, 4, 5, "timer", 2);
        out.extend(&self.device);
        out.extend([0x7e, 0, 0, 0, 5]);
        devices.push(format!(
            r#"{{"name":"timer","instance_id":0,"version":2,"fields":[{{"name":"data","size":{}}}]}}"#,
            self.device.len()
        ));
        for (number, &cpu) in self.cpus.iter().enumerate() {
            let id = 6 + number as u32;
            out.push(4);
            out.extend(id.to_be_bytes());
            out.extend(b"\x03cpu");
            out.extend([(number as u32).to_be_bytes(), 12u32.to_be_bytes()].concat());
            devices.push(state(&mut out, cpu, number));
            out.push(0x7e);
            out.extend(id.to_be_bytes());
        }
        out.push(0);
        if self.description {
            let text = format!(r#"{{"page_size":4096,"devices":[{}]}}"#, devices.join(","));
            out.push(6);
            out.extend((text.len() as u32).to_be_bytes());
            out.extend(text.as_bytes());
        }
        (out, complete)
    }

    fn name(&self, out: &mut Vec<u8>, name: &str) {
        out.push(name.len() as u8);
        out.extend(name.as_bytes());
    }

    fn records(&self, out: &mut Vec<u8>, records: &[(usize, u64, Record)]) {
        let mut before = None;
        for (block, number, record) in records {
            let again = if before == Some(block) { 0x20 } else { 0 };
            before = Some(block);
            let kind = if matches!(record, Record::Page(_)) { 8 } else { 2 };
            out.extend(((number * 4096) | kind | again).to_be_bytes());
            if again == 0 {
                self.name(out, self.blocks[*block].0);
            }
            match record {
                Record::Page(bytes) => out.extend(bytes),
                Record::Filled(byte) => out.push(*byte),
            }
        }
    }
}

/// What `virsh save` writes before a stream that is compressed with this number.
pub fn saved(stream: &[u8], compression: u32, little: bool) -> Vec<u8> {
    let mut out = b"LibvirtQemudSave".to_vec();
    for number in [2u32, 40, 0, compression] {
        out.extend(if little { number.to_le_bytes() } else { number.to_be_bytes() });
    }
    out.resize(92, 0);
    out.extend([b'x'; 40]);
    out.extend(stream);
    out
}

/// A stream in the form for files: the bitmap says that the first and the third of four pages are
/// there.
pub fn mapped(memory: &[u8]) -> Vec<u8> {
    let mut out = b"QEVM\0\0\0\x03\x07\0\0\0\x07microvm".to_vec();
    subsection(&mut out, "configuration/capabilities", b"\0\0\0\x01\x0amapped-ram");
    section(&mut out, 1, 2, "ram", 4);
    out.extend((0x4000u64 | 4).to_be_bytes());
    out.extend(b"\x0bmicrovm.ram");
    out.extend(0x4000u64.to_be_bytes());
    let bitmap = out.len() as u64 + 28;
    out.extend(1u32.to_be_bytes());
    [4096, bitmap, 0x1000].into_iter().for_each(|number: u64| out.extend(number.to_be_bytes()));
    out.extend([5, 0, 0, 0, 0, 0, 0, 0]);
    out.resize(0x1000, 0);
    out.extend(memory);
    done(&mut out, 2);
    out.push(3);
    out.extend(2u32.to_be_bytes());
    done(&mut out, 2);
    out.push(0);
    let text = r#"{"devices":[]}"#;
    out.push(6);
    out.extend((text.len() as u32).to_be_bytes());
    out.extend(text.as_bytes());
    out
}

fn section(out: &mut Vec<u8>, kind: u8, id: u32, name: &str, version: u32) {
    out.push(kind);
    out.extend(id.to_be_bytes());
    out.push(name.len() as u8);
    out.extend(name.as_bytes());
    out.extend([0u32.to_be_bytes(), version.to_be_bytes()].concat());
}

fn subsection(out: &mut Vec<u8>, name: &str, state: &[u8]) {
    out.push(5);
    out.push(name.len() as u8);
    out.extend(name.as_bytes());
    out.extend(1u32.to_be_bytes());
    out.extend(state);
}

/// The end of a section of RAM, and its footer.
fn done(out: &mut Vec<u8>, id: u32) {
    out.extend(0x10u64.to_be_bytes());
    out.push(0x7e);
    out.extend(id.to_be_bytes());
}

/// Writes a processor's state and returns what describes it.
fn state(out: &mut Vec<u8>, cpu: u64, number: usize) -> String {
    let segment = r#""struct":{"vmsd_name":"segment","version":1,"fields":[
        {"name":"selector","size":4},{"name":"base","size":8},
        {"name":"limit","size":4},{"name":"flags","size":4}]}"#;
    let mut text = String::from(r#"{"name":"env.regs","array_len":16,"size":8}"#);
    (0..16).for_each(|n| out.extend((cpu << 8 | n).to_be_bytes()));
    let mut field = |out: &mut Vec<u8>, name: &str, value: u64| {
        write!(text, r#",{{"name":"{name}","size":8}}"#).unwrap();
        out.extend(value.to_be_bytes());
    };
    for (name, value) in [("env.eip", cpu << 12), ("env.eflags", 0x246), ("env.cr[0]", 0x8005_0033)] {
        field(out, name, value);
    }
    for (name, value) in [("env.cr[2]", 0), ("env.cr[3]", 0x2000), ("env.cr[4]", 0x20), ("env.efer", 0xd01)] {
        field(out, name, value);
    }
    field(out, "env.kernelgsbase", cpu << 40);
    write!(text, r#",{{"name":"env.segs","array_len":6,{segment},"size":20}}"#).unwrap();
    for n in 0..6u32 {
        out.extend((0x10 + n).to_be_bytes());
        out.extend((cpu << 32 | u64::from(n)).to_be_bytes());
        out.extend([0xffff_ffffu32.to_be_bytes(), 0x00af_9b00u32.to_be_bytes()].concat());
    }
    for (n, name) in ["env.ldt", "env.tr", "env.gdt", "env.idt"].into_iter().enumerate() {
        write!(text, r#",{{"name":"{name}",{segment},"size":20}}"#).unwrap();
        out.extend([0; 4]);
        out.extend((cpu << 20 | n as u64).to_be_bytes());
        out.extend([0, 0, 0xf, 0xff, 0, 0, 0, 0]);
    }
    subsection(out, "cpu/more", &[1, 2, 3]);
    let more = r#"{"vmsd_name":"cpu/more","version":1,"fields":[{"name":"env.more","size":3}]}"#;
    format!(
        r#"{{"name":"cpu","instance_id":{number},"version":12,"fields":[{text}],"subsections":[{more}]}}"#
    )
}
