//! mote's guest kernel: one WebAssembly module, one address space, no privileges.
//!
//! It runs in ring 3 of a machine that somebody else set up, and owns nothing the processor trusts. This file is the
//! whole start-up. From here: `engine` loads and calls the module, `wasi` answers its calls, `hypercall` asks the host
//! for what the kernel cannot do itself, `memory` is the heap. The one who answers where there is no VMM is `monitor`, in
//! ring 0 of the same image; the rest of the kernel knows nothing of it.

#![no_std]
#![no_main]
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

extern crate alloc;

mod clock;
mod console;
mod engine;
mod entry;
mod failure;
mod guest;
mod hypercall;
mod memory;
mod monitor;
mod report;
mod wasi;

use guest::BootInfo;

/// Start-up, in full. The entry conditions are those of [`mote_abi::boot`].
extern "C" fn main() -> ! {
    let entered_tsc = clock::timestamp();
    let boot = BootInfo::read();
    boot.check();
    memory::init();
    console::init_log(boot.log_level());
    report::finish(engine::run(boot, entered_tsc))
}
