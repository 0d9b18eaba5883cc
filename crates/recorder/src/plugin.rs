//! The callbacks: what QEMU calls, and when.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use machine::{EFER_LMA, PAGE_SIZE, PhysAddr, Reg, RegFile, VirtAddr};
use trace::{Access, Direction, InsnId, MAX_INSN_BYTES};

use crate::config::Config;
use crate::gate;
use crate::idle::IdleCells;
use crate::qemu::{self, Block, CbFlags, Info, MemInfo, Memory, PluginId, Registers, Target, Tb};
use crate::ram::Ram;
use crate::recognise::{self, Load, Mark, Operand, Touches};
use crate::segment::{CR0_PE, Descriptor, FLAGS_VM, Tables};
use crate::session::{BASE_REGS, BLOCK_REGS, Refusal, SELECTORS, SYSTEM_REGS, Session, Start, VECTOR_REGS};
use crate::system::SystemRegs;

/// QEMU checks that it offers this version of the interface.
#[unsafe(no_mangle)]
pub static qemu_plugin_version: c_int = qemu::API_VERSION;

/// Longest string that a mark may point to, its NUL included.
const MAX_STRING: usize = 256;
/// System flags that QEMU keeps in the register itself: TF, IF, IOPL, NT, AC, ID.
const READABLE_FLAGS: &[Reg] = &[Reg::Tf, Reg::If, Reg::Iopl, Reg::Nt, Reg::Ac, Reg::Id];

/// Where CR2 lies in [`BLOCK_REGS`].
const CR2_INDEX: usize = {
    let mut index = 0;
    while BLOCK_REGS[index].index() != Reg::Cr2.index() {
        index += 1;
    }
    index
};

/// General registers that code of less than 64 bits has, the first of [`BLOCK_REGS`]. While a
/// processor executes such code QEMU shows the others as 0, whatever they hold, and as many of the
/// vector registers.
const NARROW_REGS: usize = 8;

/// The recorded vCPU plus one; 0: not recording. Callbacks look here before they take the lock.
static RECORDED: AtomicU32 = AtomicU32::new(0);
/// Whether blocks are translated for recording. Changes only while all vCPUs stand still.
static ARMED: AtomicU32 = AtomicU32::new(0);
static STATE: Mutex<Option<State>> = Mutex::new(None);

struct State {
    id: PluginId,
    session: Session,
    registers: Option<Registers>,
    system: Vec<SystemRegs>,
    ram: Option<Ram>,
    idle: IdleCells,
    /// Code size of the running block.
    mode_bits: u8,
    /// What may have changed since the last block's start besides the general registers.
    pending: Touches,
    /// CS at the last block's start; an interrupt changes it without an instruction.
    last_cs: u64,
    /// Selectors as their bases were last looked up.
    selectors: [u64; SELECTORS.len()],
    values: Vec<(usize, u64)>,
    /// The vector of a software interrupt that was the last instruction.
    interrupt: Option<u8>,
    /// The last code segment looked up: its descriptor's address, whether long mode is active; and
    /// its code size.
    code_segment: Option<((u64, bool), u8)>,
}

/// What an instruction's callbacks need; allocated at translation and never freed. Outside
/// recordings that is only marks and watched loads.
struct Site {
    pc: u64,
    bytes: [u8; MAX_INSN_BYTES],
    len: u8,
    mark: Option<Mark>,
    load: Option<Load>,
    /// Recording's number in the high half, the instruction's number there in the low one.
    id: AtomicU64,
}

/// What a block's start needs.
struct BlockSite {
    touches: Touches,
}

impl Site {
    fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }
}

/// # Safety
/// `data` is the pointer to a [`Site`] that was given to QEMU at translation.
unsafe fn site<'a>(data: *mut c_void) -> &'a Site {
    // SAFETY: sites are never freed, and shared access is all there is.
    unsafe { &*data.cast::<Site>() }
}

fn state() -> MutexGuard<'static, Option<State>> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Called when QEMU loads the plugin.
///
/// # Safety
/// QEMU calls it once, with its own description and `argc` argument strings.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: PluginId,
    info: *const Info,
    argc: c_int,
    argv: *mut *mut c_char,
) -> c_int {
    // SAFETY: see above; the strings live as long as the plugin.
    let (arch, system, vcpus, args) = unsafe {
        let arch = CStr::from_ptr((*info).target_name).to_string_lossy().into_owned();
        let args: Vec<String> = (0..usize::try_from(argc).unwrap_or(0))
            .map(|index| CStr::from_ptr(*argv.add(index)).to_string_lossy().into_owned())
            .collect();
        (arch, (*info).system_emulation, (*info).max_vcpus, args)
    };
    if !system || !matches!(arch.as_str(), "x86_64" | "i386") {
        eprintln!("virtuoso recorder: {arch} is not supported; use qemu-system-x86_64");
        return 1;
    }
    if vcpus != 1 {
        // Without MTTCG, QEMU 10.0 gives callbacks the index of the CPU that translated the block,
        // not of the one that runs it; with MTTCG, the operand of a locked instruction instead of
        // the value it stored.
        eprintln!("virtuoso recorder: a guest with {vcpus} CPUs cannot be recorded reliably; use -smp 1");
        return 1;
    }
    match Config::from_args(args.iter().map(String::as_str)) {
        Err(error) => {
            eprintln!("virtuoso recorder: {error}");
            1
        }
        Ok(config) => {
            let session = Session::new(config, arch, u32::try_from(vcpus).unwrap_or(1));
            *state() = Some(State {
                id,
                session,
                registers: None,
                system: Vec::new(),
                ram: None,
                idle: IdleCells::default(),
                mode_bits: 64,
                pending: Touches::ALL,
                last_cs: 0,
                selectors: [0; SELECTORS.len()],
                values: Vec::with_capacity(BLOCK_REGS.len()),
                interrupt: None,
                code_segment: None,
            });
            qemu::register(id, on_vcpu_init, on_translate, on_exit);
            0
        }
    }
}

extern "C" fn on_vcpu_init(_id: PluginId, _vcpu: c_uint) {
    if let Some(state) = state().as_mut() {
        state.vcpu_init();
    }
}

extern "C" fn on_exit(_id: PluginId, _data: *mut c_void) {
    RECORDED.store(0, Ordering::SeqCst);
    if let Some(state) = state().as_mut() {
        state.session.exit();
    }
}

/// All translations are gone and no vCPU runs: from here on blocks are translated for the new mode.
extern "C" fn on_reset(id: PluginId) {
    ARMED.store(RECORDED.load(Ordering::SeqCst), Ordering::SeqCst);
    qemu::register(id, on_vcpu_init, on_translate, on_exit);
}

extern "C" fn on_translate(_id: PluginId, tb: *mut Tb) {
    // SAFETY: QEMU's argument, used only inside this callback.
    let block = unsafe { Block::new(tb) };
    let mut armed = ARMED.load(Ordering::SeqCst) != 0;
    let mut block_site: Option<&'static BlockSite> = armed.then(|| {
        let mut touches = Touches::default();
        for insn in block.insns() {
            let mut bytes = [0; MAX_INSN_BYTES];
            let len = insn.bytes(&mut bytes);
            touches = touches.or(recognise::touches(bytes.get(..len).unwrap_or(&[])));
        }
        &*Box::leak(Box::new(BlockSite { touches }))
    });
    if let Some(block_site) = block_site {
        block.on_exec(on_block, block_site);
    }
    let mut refresh = false;
    for insn in block.insns() {
        let mut bytes = [0; MAX_INSN_BYTES];
        let len = insn.bytes(&mut bytes);
        let Some(code) = bytes.get(..len) else { continue };
        if let Some(block_site) = block_site
            && std::mem::take(&mut refresh)
        {
            // With the whole block's touches: what comes after this instruction may change them
            // too.
            insn.on_exec(on_block, CbFlags::ReadRegs, block_site);
        }
        refresh = recognise::undetermined(code);
        let (mark, load) = (recognise::mark(code), recognise::load(code));
        let halts = !armed && recognise::halts(code);
        if !armed && let Some(address) = recognise::segment_cell(code) {
            note_segment_cell(address);
        }
        if !armed && mark.is_none() && load.is_none() && !halts {
            continue;
        }
        let site: &'static Site = Box::leak(Box::new(Site {
            pc: insn.pc(),
            bytes,
            len: len as u8,
            mark,
            load,
            id: AtomicU64::new(0),
        }));
        if halts {
            insn.on_exec(on_halt, CbFlags::ReadRegs, site);
        }
        if load.is_some() {
            insn.on_exec(on_load, CbFlags::ReadRegs, site);
            insn.on_access(on_load_access, true, site);
        }
        if armed && !matches!(mark, Some(Mark::Begin | Mark::End)) {
            insn.on_exec(on_insn, CbFlags::NoRegs, site);
            insn.on_access(on_access, false, site);
        }
        if mark.is_some() {
            insn.on_exec(on_mark, CbFlags::ReadRegs, site);
        }
        // The reset that the begin mark asks for happens only at the next block: the rest of this
        // one must be seen too.
        if mark == Some(Mark::Begin) && !armed {
            armed = true;
            block_site = Some(Box::leak(Box::new(BlockSite { touches: Touches::ALL })));
        }
    }
}

/// A block outside recordings has a cell of per-CPU memory in it.
fn note_segment_cell(address: u32) {
    if let Ok(mut state) = STATE.lock()
        && let Some(state) = state.as_mut()
    {
        state.idle.names(address);
    }
}

/// Whether this vCPU is being recorded.
fn recorded(vcpu: c_uint) -> bool {
    RECORDED.load(Ordering::Relaxed) == vcpu + 1
}

/// Runs a step of the recording; if it fails, the recording is given up.
fn step(vcpu: c_uint, action: impl FnOnce(&mut State) -> Result<(), Refusal>) {
    if !recorded(vcpu) {
        return;
    }
    let mut guard = state();
    let Some(state) = guard.as_mut() else { return };
    if let Err(refusal) = action(state) {
        state.give_up(&refusal);
        let id = state.id;
        drop(guard);
        qemu::reset(id, on_reset);
    }
}

extern "C" fn on_block(vcpu: c_uint, data: *mut c_void) {
    // SAFETY: registered with a block site, which is never freed and only read.
    let site = unsafe { &*data.cast::<BlockSite>() };
    step(vcpu, |state| state.block(vcpu, site.touches));
}

extern "C" fn on_insn(vcpu: c_uint, data: *mut c_void) {
    // SAFETY: registered with a site.
    let site = unsafe { site(data) };
    step(vcpu, |state| state.insn(site));
}

extern "C" fn on_access(vcpu: c_uint, info: MemInfo, vaddr: u64, _data: *mut c_void) {
    step(vcpu, |state| {
        // SAFETY: this callback's arguments, used only inside it.
        state.access(&unsafe { Memory::new(info, vaddr) }, vaddr)
    });
}

extern "C" fn on_mark(vcpu: c_uint, data: *mut c_void) {
    // SAFETY: registered with a site.
    let site = unsafe { site(data) };
    let mut guard = state();
    let Some(state) = guard.as_mut() else { return };
    let Some(mark) = site.mark else { return };
    let before = RECORDED.load(Ordering::SeqCst);
    let mut now = before;
    match state.mark(vcpu, site, mark) {
        Ok(Switch::None) => {}
        Ok(Switch::On) => now = vcpu + 1,
        Ok(Switch::Off) => now = 0,
        Err(refusal) => {
            state.session.report(&refusal);
            // A refused declaration or a stray end harms nobody else; a refused begin or a failed
            // end ends the recording.
            if mark == Mark::Begin || mark == Mark::End && refusal.kind != "unmatched_end" {
                state.session.abandon();
                now = 0;
            }
        }
    }
    RECORDED.store(now, Ordering::SeqCst);
    let id = state.id;
    drop(guard);
    if now != before {
        qemu::reset(id, on_reset);
    }
}

extern "C" fn on_halt(vcpu: c_uint, data: *mut c_void) {
    // SAFETY: registered with a site.
    let site = unsafe { site(data) };
    if !recorded(vcpu)
        && let Some(state) = state().as_mut()
    {
        state.halt(site.pc);
    }
}

extern "C" fn on_load(vcpu: c_uint, data: *mut c_void) {
    // SAFETY: registered with a site.
    let site = unsafe { site(data) };
    if let (Some(state), Some(load)) = (state().as_mut(), site.load) {
        state.load(vcpu, load);
    }
}

extern "C" fn on_load_access(vcpu: c_uint, info: MemInfo, vaddr: u64, data: *mut c_void) {
    // SAFETY: registered with a site; this callback's arguments, used only inside it.
    let (site, memory) = unsafe { (site(data), Memory::new(info, vaddr)) };
    if let (Some(state), Some(load)) = (state().as_mut(), site.load) {
        state.load_access(vcpu, load, memory.size(), memory.value() as u64);
    }
}

/// What a mark does to the recording.
enum Switch {
    None,
    On,
    Off,
}

impl State {
    /// A vCPU exists, so the RAM file does too.
    fn vcpu_init(&mut self) {
        if self.registers.is_none() {
            let registers = Registers::find();
            if let Some(reg) = registers.missing(&BLOCK_REGS[..NARROW_REGS]) {
                let message = format!("this QEMU does not show register {} to plugins", reg.name());
                self.session.report(&Refusal::new("registers", message));
            }
            self.registers = Some(registers);
        }
        if self.ram.is_none() {
            let config = self.session.config();
            match Ram::open(&config.ram, config.ranges.clone()) {
                Ok(ram) => {
                    if config.unlink_ram
                        && let Err(error) = ram.unlink()
                    {
                        let message = format!("cannot remove {}: {error}", config.ram.display());
                        self.session.report(&Refusal::new("ram", message));
                    }
                    self.ram = Some(ram);
                }
                Err(error) => {
                    let message = format!("cannot open the guest's memory {}: {error}", config.ram.display());
                    self.session.report(&Refusal::new("ram", message));
                }
            }
        }
    }

    fn system(&mut self, vcpu: c_uint) -> &mut SystemRegs {
        let index = vcpu as usize;
        if self.system.len() <= index {
            self.system.resize_with(index + 1, SystemRegs::default);
        }
        &mut self.system[index]
    }

    fn give_up(&mut self, refusal: &Refusal) {
        RECORDED.store(0, Ordering::SeqCst);
        self.session.report(refusal);
        self.session.abandon();
    }

    /// A few registers of the running vCPU, in the order asked for; 0 where QEMU has none.
    fn peek<const N: usize>(&self, wanted: [Reg; N]) -> [u64; N] {
        wanted.map(|reg| self.registers.as_ref().and_then(|registers| registers.value(reg)).unwrap_or(0))
    }

    fn flags(&self) -> u64 {
        self.registers.as_ref().and_then(Registers::flags).unwrap_or(0)
    }

    /// Everything known about the running vCPU.
    fn all_registers(&mut self, vcpu: c_uint) -> Result<RegFile, Refusal> {
        let mut regs = RegFile::new();
        let mut flags = 0;
        let registers =
            self.registers.as_ref().ok_or_else(|| Refusal::new("registers", "no vCPU was announced"))?;
        let narrow = self.mode_bits != 64;
        registers.read_all(|target, low, high| match target {
            Target::One(reg) | Target::Two(reg) if narrow && is_wide(reg) => {}
            Target::One(reg) => regs.set(reg, low),
            Target::Two(reg) | Target::Extended(reg) => {
                regs.set(reg, low);
                if let Some(next) = Reg::from_index(reg.index() + 1) {
                    regs.set(next, if matches!(target, Target::Extended(_)) { high & 0xffff } else { high });
                }
            }
            Target::Flags => flags = low,
        });
        let mut split = RegFile::new();
        split.set_rflags(flags);
        for &reg in READABLE_FLAGS {
            regs.set(reg, split.get_or_zero(reg));
        }
        self.system(vcpu).complete(&mut regs);
        let cr0 = regs.get_or_zero(Reg::Cr0);
        let protected = cr0 & CR0_PE != 0 && flags & FLAGS_VM == 0;
        let cpl = if protected { regs.get_or_zero(Reg::Cs) & 3 } else { u64::from(cr0 & CR0_PE != 0) * 3 };
        regs.set(Reg::Cpl, cpl);
        let long = regs.get_or_zero(Reg::Efer) & EFER_LMA != 0;
        let bases =
            [(Reg::Es, Reg::EsBase), (Reg::Cs, Reg::CsBase), (Reg::Ss, Reg::SsBase), (Reg::Ds, Reg::DsBase)];
        for (selector, base_reg) in bases {
            let selector = regs.get_or_zero(selector);
            if let Some(base) = self.segment_base(vcpu, selector, protected, long && self.mode_bits == 64) {
                regs.set(base_reg, base);
            }
        }
        Ok(regs)
    }

    /// Base of a segment other than FS and GS. `flat`: in 64-bit code it is 0 whatever the
    /// selector.
    fn segment_base(&mut self, vcpu: c_uint, selector: u64, protected: bool, flat: bool) -> Option<u64> {
        match (protected, flat) {
            (false, _) => Some(selector << 4),
            (true, true) => Some(0),
            (true, false) => self.descriptor(vcpu, selector).map(Descriptor::base),
        }
    }

    /// The bases of segments whose selectors changed since the last look: an interrupt loads some
    /// without an instruction. Long mode has no such bases.
    fn changed_bases(&mut self, vcpu: c_uint) -> [Option<u64>; SELECTORS.len()] {
        let [cr0, efer] = self.peek([Reg::Cr0, Reg::Efer]);
        if efer & EFER_LMA != 0 {
            return [None; SELECTORS.len()];
        }
        let protected = cr0 & CR0_PE != 0 && self.flags() & FLAGS_VM == 0;
        let (now, before) = (self.peek(SELECTORS), self.selectors);
        self.selectors = now;
        std::array::from_fn(|at| {
            if now[at] == before[at] { None } else { self.segment_base(vcpu, now[at], protected, false) }
        })
    }

    /// The descriptor of a selector, in whichever table it lies.
    fn descriptor(&mut self, vcpu: c_uint, selector: u64) -> Option<Descriptor> {
        descriptor(self.system(vcpu).tables(), selector)
    }

    /// The linear address of something in the trainer's data segment.
    fn data_address(&mut self, vcpu: c_uint, offset: u64) -> Result<u64, Refusal> {
        let bits = self.find_mode(vcpu)?;
        if bits == 64 {
            return Ok(offset);
        }
        let [ds, cr0] = self.peek([Reg::Ds, Reg::Cr0]);
        let protected = cr0 & CR0_PE != 0 && self.flags() & FLAGS_VM == 0;
        let base = self.segment_base(vcpu, ds, protected, false).ok_or_else(|| {
            let message = format!(
                "cannot tell where the trainer's data is: the descriptor of data segment {ds:#x} is not \
                 readable"
            );
            Refusal::new("data_segment", message)
        })?;
        Ok(base.wrapping_add(offset) & 0xffff_ffff)
    }

    /// The vCPU idles.
    fn halt(&mut self, pc: u64) {
        let [cs, fs, gs, cr0, efer] = self.peek([Reg::Cs, Reg::FsBase, Reg::GsBase, Reg::Cr0, Reg::Efer]);
        if cr0 & CR0_PE == 0 || cs & 3 != 0 {
            return;
        }
        let bits = if efer & EFER_LMA != 0 { 64 } else { 32 };
        let bases: Vec<(Reg, u64)> = [(Reg::FsBase, fs), (Reg::GsBase, gs)]
            .into_iter()
            // A base that is not the kernel's own in 64-bit systems; none at all in others.
            .filter(|&(_, base)| if bits == 64 { base >> 63 == 1 } else { base != 0 })
            .collect();
        let read = |address: u64| qemu::read_memory(address, (PAGE_SIZE - address % PAGE_SIZE) as usize);
        self.idle.halt(pc, bits, &bases, read);
    }

    /// The code size the vCPU runs in.
    fn find_mode(&mut self, vcpu: c_uint) -> Result<u8, Refusal> {
        let [cr0, cs, efer] = self.peek([Reg::Cr0, Reg::Cs, Reg::Efer]);
        if cr0 & CR0_PE == 0 {
            return Ok(16);
        }
        let long = efer & EFER_LMA != 0;
        if !long && self.flags() & FLAGS_VM != 0 {
            return Ok(16);
        }
        let tables = self.system(vcpu).tables();
        let key = (tables.address(cs).unwrap_or(0), long);
        match self.code_segment {
            Some((known, bits)) if known == key => Ok(bits),
            _ => {
                let descriptor = descriptor(tables, cs).ok_or_else(|| {
                    Refusal::new(
                        "code_segment",
                        format!(
                            "cannot tell the code size: the descriptor of code segment {cs:#x} is not \
                            readable"
                        ),
                    )
                })?;
                let bits = descriptor.code_bits(long);
                self.code_segment = Some((key, bits));
                Ok(bits)
            }
        }
    }

    /// A block starts. General registers, CS and CR2 may always have changed; the others only if
    /// the blocks before say so or if CS shows that an interrupt came.
    fn block(&mut self, vcpu: c_uint, touches: Touches) -> Result<(), Refusal> {
        let [cs] = self.peek([Reg::Cs]);
        if let Some(vector) = self.interrupt.take()
            && self.last_cs & 3 != 0
            && cs & 3 == 0
        {
            self.gate(vcpu, vector)?;
        }
        let system = self.pending.system || cs != self.last_cs;
        let vector = self.pending.vector;
        if system {
            self.mode_bits = self.find_mode(vcpu)?;
        }
        let bases = if system { self.changed_bases(vcpu) } else { [None; SELECTORS.len()] };
        let Some(registers) = &self.registers else { return Ok(()) };
        let shown = if self.mode_bits == 64 { 2 * NARROW_REGS } else { NARROW_REGS };
        self.values.clear();
        let put = |values: &mut Vec<(usize, u64)>, index: usize| {
            values.extend(registers.value(BLOCK_REGS[index]).map(|value| (index, value)));
        };
        (0..shown).for_each(|index| put(&mut self.values, index));
        if system {
            for index in SYSTEM_REGS {
                if BLOCK_REGS[index] == Reg::Cpl {
                    let protected = registers.value(Reg::Cr0).unwrap_or(0) & CR0_PE != 0;
                    self.values.push((index, if protected { cs & 3 } else { 0 }));
                } else {
                    put(&mut self.values, index);
                }
            }
            self.values.extend(BASE_REGS.zip(bases).filter_map(|(index, base)| Some((index, base?))));
        } else {
            put(&mut self.values, CR2_INDEX);
        }
        if vector {
            put(&mut self.values, VECTOR_REGS.start);
            for index in (VECTOR_REGS.start + 1..VECTOR_REGS.end).step_by(2).take(shown) {
                if let Some((low, high)) = registers.pair(BLOCK_REGS[index]) {
                    self.values.extend([(index, low), (index + 1, high)]);
                }
            }
        }
        self.last_cs = cs;
        self.pending = touches;
        self.session.block(&self.values)
    }

    fn insn(&mut self, site: &Site) -> Result<(), Refusal> {
        let serial = u64::from(self.session.serial());
        let known = site.id.load(Ordering::Relaxed);
        let id = if known >> 32 == serial {
            InsnId(known as u32)
        } else {
            let Some(id) = self.session.insn_id(site.pc, self.mode_bits, site.bytes())? else {
                return Ok(());
            };
            site.id.store(serial << 32 | u64::from(id.0), Ordering::Relaxed);
            id
        };
        self.interrupt = recognise::interrupt(site.bytes());
        self.session.insn(id)
    }

    /// A software interrupt of a process was delivered: QEMU shows no plugin what the processor
    /// reads and writes for that.
    fn gate(&mut self, vcpu: c_uint, vector: u8) -> Result<(), Refusal> {
        let [rsp, cs, ss, cr0, cr3, cr4, efer] =
            self.peek([Reg::Rsp, Reg::Cs, Reg::Ss, Reg::Cr0, Reg::Cr3, Reg::Cr4, Reg::Efer]);
        let mut regs = RegFile::new();
        for (reg, value) in [(Reg::Cr0, cr0), (Reg::Cr3, cr3), (Reg::Cr4, cr4), (Reg::Efer, efer)] {
            regs.set(reg, value);
        }
        let system = self.system(vcpu);
        let [idt, task, gdt] =
            [Reg::IdtrBase, Reg::TrBase, Reg::GdtrBase].map(|reg| system.get(reg).unwrap_or(0));
        let stack_base = descriptor(system.tables(), ss).map_or(0, Descriptor::base);
        let read = |address: u64, size: u8| number(address, size).unwrap_or(0);
        for access in
            gate::accesses(vector, efer & EFER_LMA != 0, [idt, task, gdt], [cs, ss, rsp], stack_base, &read)
        {
            let at = |address: u64| match &self.ram {
                Some(ram) => ram.translate(&regs, address),
                None => Err("the guest's memory file could not be opened".to_owned()),
            };
            let address = access.vaddr.0;
            let paddr = at(address).map_err(|why| {
                Refusal::new(
                    "interrupt",
                    format!("the software interrupt {vector:#x} uses memory at {address:#x}: {why}"),
                )
            })?;
            let next_page = access
                .crosses_page()
                .then(|| at((address & !(PAGE_SIZE - 1)).wrapping_add(PAGE_SIZE)).ok())
                .flatten();
            self.session.access(&Access {
                paddr: PhysAddr(paddr),
                next_page: next_page.map(PhysAddr),
                ..access
            })?;
        }
        Ok(())
    }

    fn access(&mut self, memory: &Memory, vaddr: u64) -> Result<(), Refusal> {
        let no_address = || {
            Refusal::new(
                "physical_address",
                format!("QEMU gives no physical address for the access at {vaddr:#x}"),
            )
        };
        let (paddr, io) = memory.physical(0).ok_or_else(no_address)?;
        let mut access = Access {
            store: memory.is_store(),
            vaddr: VirtAddr(vaddr),
            paddr: PhysAddr(paddr),
            next_page: None,
            size: memory.size(),
            value: memory.value(),
            io,
        };
        if access.crosses_page() {
            let next = memory.physical(PAGE_SIZE - access.vaddr.offset()).ok_or_else(no_address)?;
            access.next_page = Some(PhysAddr(next.0).page());
        }
        self.session.access(&access)
    }

    fn mark(&mut self, vcpu: c_uint, site: &Site, mark: Mark) -> Result<Switch, Refusal> {
        let [rdi, rsi, cr3] = self.peek([Reg::Rdi, Reg::Rsi, Reg::Cr3]);
        match mark {
            Mark::Input | Mark::Output => {
                let spec = read_string(self.data_address(vcpu, rdi)?)?;
                let direction = if mark == Mark::Input { Direction::Input } else { Direction::Output };
                let variable = self.data_address(vcpu, rsi)?;
                self.session.declare(cr3, direction, &spec, variable)?;
                Ok(Switch::None)
            }
            Mark::Begin => {
                let name = read_string(self.data_address(vcpu, rdi)?)?;
                self.mode_bits = self.find_mode(vcpu)?;
                let mut regs = self.all_registers(vcpu)?;
                regs.set(Reg::Rip, site.pc.wrapping_add(u64::from(site.len)));
                let ram = self.ram.as_ref();
                let copy = || {
                    let ram = ram
                        .ok_or_else(|| Refusal::new("ram", "the guest's memory file could not be opened"))?;
                    ram.copy().map_err(|error| {
                        Refusal::new("ram", format!("cannot read the guest's memory: {error}"))
                    })
                };
                // The next interrupt may come before another block begins.
                (self.last_cs, self.interrupt) = (regs.get_or_zero(Reg::Cs), None);
                self.selectors = SELECTORS.map(|reg| regs.get_or_zero(reg));
                let start = Start { mode_bits: self.mode_bits, regs, idle: self.idle.cells() };
                self.session.begin(vcpu, &name, rsi, start, copy)?;
                self.pending = Touches::ALL;
                Ok(Switch::On)
            }
            Mark::End => {
                let mut regs = self.all_registers(vcpu)?;
                regs.set(Reg::Rip, site.pc);
                Ok(if self.session.end(vcpu, regs)? { Switch::Off } else { Switch::None })
            }
        }
    }

    fn load(&mut self, vcpu: c_uint, load: Load) {
        match load {
            Load::Wrmsr => {
                let [index, low, high] = self.peek([Reg::Rcx, Reg::Rax, Reg::Rdx]);
                self.system(vcpu).wrmsr(index as u32, high << 32 | low & 0xffff_ffff);
            }
            Load::Xsetbv => {
                let [index, low, high] = self.peek([Reg::Rcx, Reg::Rax, Reg::Rdx]);
                if index as u32 == 0 {
                    self.system(vcpu).set(Reg::Xcr0, high << 32 | low & 0xffff_ffff);
                }
            }
            Load::Ltr(Operand::Register(number)) => {
                let [selector] = self.peek([Reg::gpr(usize::from(number))]);
                self.task_register(vcpu, Reg::Tr, Reg::TrBase, selector);
            }
            Load::Lldt(Operand::Register(number)) => {
                let [selector] = self.peek([Reg::gpr(usize::from(number))]);
                self.task_register(vcpu, Reg::Ldtr, Reg::LdtrBase, selector);
            }
            Load::Lgdt | Load::Lidt | Load::Ltr(Operand::Memory) | Load::Lldt(Operand::Memory) => {}
        }
    }

    fn load_access(&mut self, vcpu: c_uint, load: Load, size: u8, value: u64) {
        match load {
            Load::Lgdt => self.system(vcpu).table(Reg::GdtrBase, Reg::GdtrLimit, size, value),
            Load::Lidt => self.system(vcpu).table(Reg::IdtrBase, Reg::IdtrLimit, size, value),
            // The selector itself; the processor's own reads of the descriptor are eight bytes or
            // in a helper.
            Load::Ltr(Operand::Memory) if size == 2 => self.task_register(vcpu, Reg::Tr, Reg::TrBase, value),
            Load::Lldt(Operand::Memory) if size == 2 => {
                self.task_register(vcpu, Reg::Ldtr, Reg::LdtrBase, value)
            }
            _ => {}
        }
    }

    fn task_register(&mut self, vcpu: c_uint, selector_reg: Reg, base_reg: Reg, selector: u64) {
        let [efer] = self.peek([Reg::Efer]);
        let selector = selector & 0xffff;
        let system = self.system(vcpu);
        system.set(selector_reg, selector);
        let tables = system.tables();
        if let Some(low) = descriptor(tables, selector) {
            let mut base = low.base();
            if efer & EFER_LMA != 0 {
                // System descriptors have sixteen bytes in long mode; the upper half of the base
                // comes third.
                let high = tables.address(selector).and_then(|at| qword(at.wrapping_add(8)));
                base |= high.unwrap_or(0) << 32;
            }
            system.set(base_reg, base);
        }
    }
}

/// Whether only 64-bit code has this register.
fn is_wide(reg: Reg) -> bool {
    let wide = |first: Reg, size: usize| {
        (first.index() + size * NARROW_REGS..first.index() + size * 2 * NARROW_REGS).contains(&reg.index())
    };
    wide(Reg::Rax, 1) || wide(Reg::Xmm0Lo, 2)
}

/// The little-endian number of so many bytes there.
fn number(addr: u64, size: u8) -> Option<u64> {
    let bytes = qemu::read_memory(addr, usize::from(size))?;
    Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

fn qword(addr: u64) -> Option<u64> {
    number(addr, 8)
}

/// The descriptor of a selector.
fn descriptor(tables: Tables, selector: u64) -> Option<Descriptor> {
    qword(tables.address(selector)?).map(Descriptor)
}

/// The NUL-terminated string at this address of the trainer.
fn read_string(addr: u64) -> Result<String, Refusal> {
    let mut bytes = Vec::new();
    while bytes.len() < MAX_STRING {
        let at = addr.wrapping_add(bytes.len() as u64);
        let in_page = (PAGE_SIZE - at % PAGE_SIZE).min((MAX_STRING - bytes.len()) as u64) as usize;
        let Some(part) = qemu::read_memory(at, in_page) else {
            let message =
                format!("a mark's string at {addr:#x} is not in memory; use the macros of virtuoso.h");
            return Err(Refusal::new("string", message));
        };
        if let Some(end) = part.iter().position(|&byte| byte == 0) {
            bytes.extend_from_slice(&part[..end]);
            return String::from_utf8(bytes)
                .map_err(|_| Refusal::new("string", format!("a mark's string at {addr:#x} is not text")));
        }
        bytes.extend(part);
    }
    Err(Refusal::new(
        "string",
        format!("a mark's string at {addr:#x} has more than {} bytes", MAX_STRING - 1),
    ))
}
