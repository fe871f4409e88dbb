//! A plugin of QEMU that counts the instructions which a guest executes, those of programs and those of the kernel, and writes both counts
//! to a file whenever the guest comes upon a mark.
//!
//!     qemu-system-x86_64 -accel tcg -smp 1 -plugin libtoe_guest_instructions.so,marks=FILE …
//!
//! Each mark appends a line `MARK USER KERNEL`, all decimal: 1 or 0, and the instructions so far in the lower and in the upper half of virtual
//! addresses, which on x86-64 Linux are the programs' and the kernel's. A count is exact for a guest with one processor, but for the
//! block in which a mark stands, which is counted whole; several processors would add to the same counter without locking. What a halted
//! processor does not execute is not counted. A copy of any length by one instruction with a repeat prefix counts once, as processors' own
//! counters have it, though QEMU executes it turn by turn; it counts nothing when it is jumped to.
//!
//! The interface is that of QEMU's documentation ("QEMU TCG Plugins"), version 1: QEMU 4.2 to 8.2. QEMU resolves its functions when
//! it loads the plugin, so that nothing of QEMU is needed to build it.

mod mark;
#[cfg(not(test))]
mod plugin;
