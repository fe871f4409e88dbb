//! What QEMU calls, and what it is asked for.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fs::File;
use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::mark::{self, Mark};

/// A block of instructions that QEMU translates at once.
#[repr(C)]
pub struct Block {
    opaque: [u8; 0],
}

/// An instruction in it.
#[repr(C)]
pub struct Instruction {
    opaque: [u8; 0],
}

/// `QEMU_PLUGIN_INLINE_ADD_U64`.
const ADD_U64: c_int = 0;
/// `QEMU_PLUGIN_CB_NO_REGS`.
const NO_REGISTERS: c_int = 0;

unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: u64, callback: extern "C" fn(u64, *mut Block));
    fn qemu_plugin_register_vcpu_tb_exec_inline(block: *mut Block, op: c_int, counter: *mut c_void, add: u64);
    fn qemu_plugin_register_vcpu_insn_exec_cb(
        instruction: *mut Instruction,
        callback: extern "C" fn(c_uint, *mut c_void),
        flags: c_int,
        data: *mut c_void,
    );
    fn qemu_plugin_tb_n_insns(block: *const Block) -> usize;
    fn qemu_plugin_tb_vaddr(block: *const Block) -> u64;
    fn qemu_plugin_tb_get_insn(block: *const Block, index: usize) -> *mut Instruction;
    fn qemu_plugin_insn_data(instruction: *const Instruction) -> *const u8;
    fn qemu_plugin_insn_size(instruction: *const Instruction) -> usize;
}

/// The version of the interface that this is written for.
#[unsafe(no_mangle)]
pub static qemu_plugin_version: c_int = 1;

static USER: AtomicU64 = AtomicU64::new(0);
static KERNEL: AtomicU64 = AtomicU64::new(0);
static MARKS: OnceLock<File> = OnceLock::new();

/// QEMU's first call; anything but 0 has it end.
///
/// # Safety
/// `argv` holds `argc` strings, as QEMU promises.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: u64,
    _about_qemu: *const c_void,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    // SAFETY: `argv` holds so many pointers to strings, which live as long as the plugin.
    let argument = |n: usize| unsafe { CStr::from_ptr(*argv.add(n)) }.to_str().unwrap_or_default();
    let arguments: Vec<&str> = (0..argc.max(0) as usize).map(argument).collect();
    let Some(path) = mark::path(&arguments) else {
        eprintln!("guest-instructions: -plugin FILE,marks=PATH");
        return 1;
    };
    match File::options().create(true).append(true).open(path) {
        Ok(file) => {
            // Installed once.
            let _ = MARKS.set(file);
        }
        Err(error) => {
            eprintln!("guest-instructions: {path}: {error}");
            return 1;
        }
    }
    // SAFETY: the id is the one that QEMU gave.
    unsafe { qemu_plugin_register_vcpu_tb_trans_cb(id, translated) };
    0
}

/// A block was translated: each time that it is executed its length is added, and its marks are told.
extern "C" fn translated(_: u64, block: *mut Block) {
    // SAFETY: QEMU gives a block that is valid for this call; the counters and instructions are asked of it alone. A counter is
    // an aligned u64 that lives for ever and is written by the guest's one processor.
    unsafe {
        let count = qemu_plugin_tb_n_insns(block);
        let counter = if mark::is_kernel(qemu_plugin_tb_vaddr(block)) { &KERNEL } else { &USER };
        let mut counts = count as u64;
        for n in 0..count {
            let instruction = qemu_plugin_tb_get_insn(block, n);
            let bytes =
                std::slice::from_raw_parts(qemu_plugin_insn_data(instruction), qemu_plugin_insn_size(instruction));
            // The next turn of one that was counted where it was come upon.
            counts -= u64::from(n == 0 && mark::is_repeated(bytes));
            if let Some(mark) = Mark::of(bytes) {
                let data = std::ptr::without_provenance_mut(usize::from(mark.number()));
                qemu_plugin_register_vcpu_insn_exec_cb(instruction, marked, NO_REGISTERS, data);
            }
        }
        qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, counter.as_ptr().cast(), counts);
    }
}

/// The guest came upon a mark; its number is in `data`.
extern "C" fn marked(_: c_uint, data: *mut c_void) {
    let [user, kernel] = [&USER, &KERNEL].map(|counter| counter.load(Ordering::Relaxed));
    if let Some(mut file) = MARKS.get() {
        // A line that is missing is noticed by who reads them.
        let _ = file.write_all(format!("{} {user} {kernel}\n", data.addr()).as_bytes());
    }
}
