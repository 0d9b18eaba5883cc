//! QEMU's plugin interface, version 4, by hand (`qemu-plugin.h` of QEMU 9.2 and later), and safe
//! wrappers.
//!
//! The wrappers may be called only inside callbacks, which is where [`crate::plugin`] calls them.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};

use machine::Reg;
use trace::MAX_INSN_BYTES;

/// Version 4 added `qemu_plugin_read_memory_vaddr`, the newest function used here.
pub const API_VERSION: c_int = 4;

pub type PluginId = u64;
pub type MemInfo = u32;

/// Opaque: a translation block while it is translated.
#[repr(C)]
pub struct Tb {
    _opaque: [u8; 0],
}

/// Opaque: an instruction while its block is translated.
#[repr(C)]
pub struct Insn {
    _opaque: [u8; 0],
}

#[repr(C)]
struct Hwaddr {
    _opaque: [u8; 0],
}

/// Opaque: a register.
#[repr(C)]
struct Register {
    _opaque: [u8; 0],
}

/// QEMU's `qemu_info_t`.
#[repr(C)]
pub struct Info {
    pub target_name: *const c_char,
    pub version_min: c_int,
    pub version_cur: c_int,
    pub system_emulation: bool,
    pub smp_vcpus: c_int,
    pub max_vcpus: c_int,
}

#[repr(C)]
struct MemValue {
    kind: c_uint,
    low: u64,
    high: u64,
}

#[repr(C)]
struct GArray {
    data: *mut c_void,
    len: c_uint,
}

#[repr(C)]
struct GByteArray {
    data: *mut u8,
    len: c_uint,
}

#[repr(C)]
struct RegDescriptor {
    handle: *mut Register,
    name: *const c_char,
    feature: *const c_char,
}

pub type SimpleCb = extern "C" fn(PluginId);
pub type UdataCb = extern "C" fn(PluginId, *mut c_void);
pub type VcpuSimpleCb = extern "C" fn(PluginId, c_uint);
pub type VcpuUdataCb = extern "C" fn(c_uint, *mut c_void);
pub type TransCb = extern "C" fn(PluginId, *mut Tb);
pub type MemCb = extern "C" fn(c_uint, MemInfo, u64, *mut c_void);

/// Whether a callback reads registers.
#[derive(Clone, Copy)]
#[repr(C)]
pub enum CbFlags {
    NoRegs = 0,
    ReadRegs = 1,
}

const MEM_READ: c_int = 1;
const MEM_READ_WRITE: c_int = 3;

unsafe extern "C" {
    fn qemu_plugin_reset(id: PluginId, cb: SimpleCb);
    fn qemu_plugin_register_vcpu_init_cb(id: PluginId, cb: VcpuSimpleCb);
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: PluginId, cb: TransCb);
    fn qemu_plugin_register_atexit_cb(id: PluginId, cb: UdataCb, userdata: *mut c_void);
    fn qemu_plugin_register_vcpu_tb_exec_cb(
        tb: *mut Tb,
        cb: VcpuUdataCb,
        flags: CbFlags,
        userdata: *mut c_void,
    );
    fn qemu_plugin_register_vcpu_insn_exec_cb(
        insn: *mut Insn,
        cb: VcpuUdataCb,
        flags: CbFlags,
        userdata: *mut c_void,
    );
    fn qemu_plugin_register_vcpu_mem_cb(
        insn: *mut Insn,
        cb: MemCb,
        flags: CbFlags,
        rw: c_int,
        userdata: *mut c_void,
    );
    fn qemu_plugin_tb_n_insns(tb: *const Tb) -> usize;
    fn qemu_plugin_tb_get_insn(tb: *const Tb, index: usize) -> *mut Insn;
    fn qemu_plugin_insn_data(insn: *const Insn, dest: *mut c_void, len: usize) -> usize;
    fn qemu_plugin_insn_size(insn: *const Insn) -> usize;
    fn qemu_plugin_insn_vaddr(insn: *const Insn) -> u64;
    fn qemu_plugin_mem_size_shift(info: MemInfo) -> c_uint;
    fn qemu_plugin_mem_is_store(info: MemInfo) -> bool;
    fn qemu_plugin_mem_get_value(info: MemInfo) -> MemValue;
    fn qemu_plugin_get_hwaddr(info: MemInfo, vaddr: u64) -> *mut Hwaddr;
    fn qemu_plugin_hwaddr_is_io(hwaddr: *const Hwaddr) -> bool;
    fn qemu_plugin_hwaddr_phys_addr(hwaddr: *const Hwaddr) -> u64;
    fn qemu_plugin_get_registers() -> *mut GArray;
    fn qemu_plugin_read_register(handle: *mut Register, buf: *mut GByteArray) -> c_int;
    fn qemu_plugin_read_memory_vaddr(addr: u64, data: *mut GByteArray, len: usize) -> bool;
    fn g_array_free(array: *mut GArray, free_segment: c_int) -> *mut c_char;
    fn g_byte_array_new() -> *mut GByteArray;
    fn g_byte_array_set_size(array: *mut GByteArray, len: c_uint) -> *mut GByteArray;
    fn g_byte_array_free(array: *mut GByteArray, free_segment: c_int) -> *mut u8;
}

/// Asks for all translations and callbacks to be dropped; `cb` runs when that has happened and
/// registers anew.
pub fn reset(id: PluginId, cb: SimpleCb) {
    // SAFETY: called from callbacks with this plugin's own id.
    unsafe { qemu_plugin_reset(id, cb) }
}

/// Registers the callbacks that are always there.
pub fn register(id: PluginId, vcpu_init: VcpuSimpleCb, translate: TransCb, exit: UdataCb) {
    // SAFETY: called from the install and reset callbacks with this plugin's own id; the functions
    // live as long as the process because the plugin is never unloaded.
    unsafe {
        qemu_plugin_register_vcpu_init_cb(id, vcpu_init);
        qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
        qemu_plugin_register_atexit_cb(id, exit, std::ptr::null_mut());
    }
}

/// A block in a translation callback.
pub struct Block(*mut Tb);

impl Block {
    /// # Safety
    /// `tb` is the argument of a translation callback that is running.
    pub const unsafe fn new(tb: *mut Tb) -> Self {
        Self(tb)
    }

    /// Calls `cb` each time the block starts.
    pub fn on_exec<T: Sync>(&self, cb: VcpuUdataCb, data: &'static T) {
        let data = std::ptr::from_ref(data).cast_mut().cast();
        // SAFETY: the block is being translated (see `new`); the data is never freed and callbacks
        // only read it.
        unsafe { qemu_plugin_register_vcpu_tb_exec_cb(self.0, cb, CbFlags::ReadRegs, data) }
    }

    /// The block's instructions.
    pub fn insns(&self) -> impl Iterator<Item = TranslatedInsn> {
        // SAFETY: the block is being translated, and the index is below the count.
        let count = unsafe { qemu_plugin_tb_n_insns(self.0) };
        // SAFETY: as above.
        (0..count).map(|index| TranslatedInsn(unsafe { qemu_plugin_tb_get_insn(self.0, index) }))
    }
}

/// An instruction in a translation callback.
pub struct TranslatedInsn(*mut Insn);

impl TranslatedInsn {
    /// Its linear address.
    pub fn pc(&self) -> u64 {
        // SAFETY: the instruction belongs to a block that is being translated.
        unsafe { qemu_plugin_insn_vaddr(self.0) }
    }

    /// Copies its bytes and returns its length, which may be larger than what was copied.
    pub fn bytes(&self, out: &mut [u8; MAX_INSN_BYTES]) -> usize {
        // SAFETY: as in `pc`; QEMU copies at most `len` bytes.
        unsafe {
            qemu_plugin_insn_data(self.0, out.as_mut_ptr().cast(), out.len());
            qemu_plugin_insn_size(self.0)
        }
    }

    /// Calls `cb` before it executes.
    pub fn on_exec<T: Sync>(&self, cb: VcpuUdataCb, flags: CbFlags, data: &'static T) {
        // SAFETY: as in `pc`; the data is never freed and callbacks only read it.
        unsafe {
            qemu_plugin_register_vcpu_insn_exec_cb(
                self.0,
                cb,
                flags,
                std::ptr::from_ref(data).cast_mut().cast(),
            )
        }
    }

    /// Calls `cb` after each of its accesses.
    pub fn on_access<T: Sync>(&self, cb: MemCb, reads_only: bool, data: &'static T) {
        let rw = if reads_only { MEM_READ } else { MEM_READ_WRITE };
        let data = std::ptr::from_ref(data).cast_mut().cast();
        // SAFETY: as in `on_exec`.
        unsafe { qemu_plugin_register_vcpu_mem_cb(self.0, cb, CbFlags::NoRegs, rw, data) }
    }
}

/// An access in a memory callback.
pub struct Memory {
    info: MemInfo,
    vaddr: u64,
}

impl Memory {
    /// # Safety
    /// Both are the arguments of a memory callback that is running.
    pub const unsafe fn new(info: MemInfo, vaddr: u64) -> Self {
        Self { info, vaddr }
    }

    /// How many bytes are accessed.
    pub fn size(&self) -> u8 {
        // SAFETY: inside the memory callback (see `new`).
        1u8.checked_shl(unsafe { qemu_plugin_mem_size_shift(self.info) }).unwrap_or(0)
    }

    /// Write instead of read.
    pub fn is_store(&self) -> bool {
        // SAFETY: as in `size`.
        unsafe { qemu_plugin_mem_is_store(self.info) }
    }

    /// The value read or written.
    pub fn value(&self) -> u128 {
        // SAFETY: as in `size`.
        let value = unsafe { qemu_plugin_mem_get_value(self.info) };
        let low = u128::from(value.low);
        match value.kind {
            0 => low & 0xff,
            1 => low & 0xffff,
            2 => low & 0xffff_ffff,
            3 => low,
            _ => low | u128::from(value.high) << 64,
        }
    }

    /// The physical address `offset` bytes into the access, and whether a device answers there.
    pub fn physical(&self, offset: u64) -> Option<(u64, bool)> {
        // SAFETY: as in `size`; the handle is used before the callback returns.
        unsafe {
            let hwaddr = qemu_plugin_get_hwaddr(self.info, self.vaddr.wrapping_add(offset));
            (!hwaddr.is_null())
                .then(|| (qemu_plugin_hwaddr_phys_addr(hwaddr), qemu_plugin_hwaddr_is_io(hwaddr)))
        }
    }
}

/// A register that QEMU shows, and what it is here.
struct Known {
    handle: *mut Register,
    target: Target,
}

/// What a register of QEMU's becomes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Target {
    One(Reg),
    /// 128 bits: the low half and the number after it.
    Two(Reg),
    /// An 80-bit x87 register in two halves.
    Extended(Reg),
    /// EFLAGS, whose arithmetic flags and DF QEMU keeps elsewhere.
    Flags,
}

/// The registers QEMU shows, found by name once, and a buffer to read them into.
pub struct Registers {
    known: Vec<Known>,
    /// Index into `known` by register number; a pair is found under its lower half.
    by_reg: Vec<Option<usize>>,
    buffer: *mut GByteArray,
}

// SAFETY: the handles are constants that QEMU hands to every vCPU thread alike, and the buffer is
// used by one thread at a time because the plugin's state lies behind a mutex.
unsafe impl Send for Registers {}

impl Registers {
    /// Finds the registers. Called in a vCPU's init callback.
    pub fn find() -> Self {
        let mut known = Vec::new();
        // SAFETY: called in vCPU context. The array holds `len` descriptors whose names are C
        // strings that outlive it; it is freed once, with its memory.
        let buffer = unsafe {
            let array = qemu_plugin_get_registers();
            if !array.is_null() {
                let descriptors: &[RegDescriptor] = if (*array).data.is_null() {
                    &[]
                } else {
                    std::slice::from_raw_parts((*array).data.cast(), (*array).len as usize)
                };
                for descriptor in descriptors {
                    if let Some(target) = CStr::from_ptr(descriptor.name).to_str().ok().and_then(target) {
                        known.push(Known { handle: descriptor.handle, target });
                    }
                }
                g_array_free(array, 1);
            }
            g_byte_array_new()
        };
        let mut by_reg = vec![None; Reg::COUNT];
        for (index, known) in known.iter().enumerate() {
            if let Target::One(reg) | Target::Two(reg) | Target::Extended(reg) = known.target {
                by_reg[reg.index()] = Some(index);
            }
        }
        Self { known, by_reg, buffer }
    }

    /// The first register of the list that cannot be read.
    pub fn missing(&self, wanted: &[Reg]) -> Option<Reg> {
        wanted.iter().copied().find(|reg| self.by_reg[reg.index()].is_none())
    }

    /// The low and the high 64 bits of a register as QEMU keeps it: for the second half of a
    /// register pair, the pair's.
    fn read_handle(&self, handle: *mut Register) -> Option<(u64, u64)> {
        // SAFETY: called inside a callback that may read registers; QEMU appends to the buffer,
        // which is emptied before, and the slice ends before the buffer is used again.
        let bytes = unsafe {
            g_byte_array_set_size(self.buffer, 0);
            if qemu_plugin_read_register(handle, self.buffer) <= 0 {
                return None;
            }
            std::slice::from_raw_parts((*self.buffer).data, (*self.buffer).len as usize)
        };
        if let Some(word) = bytes.first_chunk() {
            let high =
                bytes[8..].iter().take(8).rev().fold(0, |word: u64, &byte| word << 8 | u64::from(byte));
            return Some((u64::from_le_bytes(*word), high));
        }
        Some((bytes.iter().rev().fold(0, |word: u64, &byte| word << 8 | u64::from(byte)), 0))
    }

    /// The value of a register, except the upper halves of pairs.
    pub fn value(&self, reg: Reg) -> Option<u64> {
        self.pair(reg).map(|(low, _)| low)
    }

    /// Both halves of the register whose lower half this is.
    pub fn pair(&self, reg: Reg) -> Option<(u64, u64)> {
        self.by_reg[reg.index()].and_then(|index| self.read_handle(self.known[index].handle))
    }

    /// `EFLAGS`, of which the arithmetic flags and DF are not usable.
    pub fn flags(&self) -> Option<u64> {
        let known = self.known.iter().find(|known| known.target == Target::Flags)?;
        self.read_handle(known.handle).map(|(low, _)| low)
    }

    /// Calls `visit` with every register, its low and its high 64 bits.
    pub fn read_all(&self, mut visit: impl FnMut(Target, u64, u64)) {
        for known in &self.known {
            if let Some((low, high)) = self.read_handle(known.handle) {
                visit(known.target, low, high);
            }
        }
    }
}

impl Drop for Registers {
    fn drop(&mut self) {
        // SAFETY: the buffer came from g_byte_array_new and is freed once.
        unsafe {
            g_byte_array_free(self.buffer, 1);
        }
    }
}

/// What a register is called in QEMU's gdb description (`gdb-xml/i386-64bit.xml`,
/// `i386-32bit.xml`).
fn target(name: &str) -> Option<Target> {
    if let Some(number) = name.strip_prefix("xmm") {
        return number.parse().ok().filter(|&n: &usize| n < 16).map(|n| Target::Two(Reg::xmm_lo(n)));
    }
    if let Some(number) = name.strip_prefix("st").and_then(|number| number.parse::<usize>().ok()) {
        return Reg::from_index(Reg::St0Lo.index() + 2 * number).filter(|_| number < 8).map(Target::Extended);
    }
    let renamed = match name {
        "eflags" => return Some(Target::Flags),
        "k_gs_base" => "kernel_gs_base",
        "fctrl" => "fcw",
        "fstat" => "fsw",
        "ftag" => "ftw",
        "fop" => "fop",
        "fioff" => "fip",
        "fooff" => "fdp",
        // The 32-bit description's names.
        "eax" => "rax",
        "ecx" => "rcx",
        "edx" => "rdx",
        "ebx" => "rbx",
        "esp" => "rsp",
        "ebp" => "rbp",
        "esi" => "rsi",
        "edi" => "rdi",
        // Stale inside a block.
        "rip" | "eip" => return None,
        other => other,
    };
    Reg::NAMES.iter().position(|&own| own == renamed).and_then(Reg::from_index).map(Target::One)
}

/// Reads guest memory through the current page tables; `None` where nothing is mapped.
pub fn read_memory(addr: u64, len: usize) -> Option<Vec<u8>> {
    // SAFETY: called inside a callback in vCPU context; the buffer is ours, holds `len` bytes after
    // success, is copied and freed once.
    unsafe {
        let buffer = g_byte_array_new();
        let ok = qemu_plugin_read_memory_vaddr(addr, buffer, len);
        let bytes = (ok && (*buffer).len as usize >= len)
            .then(|| std::slice::from_raw_parts((*buffer).data, len).to_vec());
        g_byte_array_free(buffer, 1);
        bytes
    }
}
