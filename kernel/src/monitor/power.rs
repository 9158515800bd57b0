//! Switching the machine off, resetting it, stopping it. None of these comes back.

use core::ptr;

use mote_kernel_logic::boot::acpi::{Power, Register};
use x86_64::{
    instructions::{hlt, interrupts, port::Port, tables::lidt},
    structures::DescriptorTablePointer,
};

use super::{clock::Timer, memory::LOW_END};

/// Enter the state of sleep whose type is set; power management is on (ACPI 6.5, section 4.8.3.2.1).
const SLEEP_ENABLE: u16 = 1 << 13;
const IS_ENABLED: u16 = 1;
/// Of QEMU's isa-debug-exit.
const DEBUG_EXIT: u16 = 0xf4;

/// Ends QEMU, which makes its exit status out of this one: twice that and one, of which eight bits are left.
pub(super) fn debug_exit(status: u32) {
    // SAFETY: the command line says that the device is here.
    unsafe { Port::<u32>::new(DEBUG_EXIT).write(status) };
}

/// Soft-off by ACPI. Comes back if the machine does not do it.
pub(super) fn off(power: Option<&Power>, timer: &Timer) {
    let Some(power) = power else { return };
    match power.sleep {
        // SAFETY: firmware says that this switches the machine off; memory below 4 GiB is mapped, and nothing else lies there.
        Some((Register::Port(port), value)) => unsafe { Port::<u8>::new(port).write(value) },
        // SAFETY: as above.
        Some((Register::Memory(address), value)) if address < LOW_END => unsafe {
            ptr::write_volatile(address as *mut u8, value)
        },
        _ => {}
    }
    for (port, kind) in power.control.iter().filter(|(port, _)| *port != 0) {
        let mut control = Port::<u16>::new(*port);
        // SAFETY: firmware says that these ports switch the machine off, and how.
        unsafe {
            if control.read() & IS_ENABLED == 0
                && let Some((port, value)) = power.enable
            {
                Port::<u8>::new(port).write(value);
                timer.sleep_s(1);
            }
            control.write(kind | SLEEP_ENABLE);
        }
    }
    timer.sleep_s(1);
}

/// Resets the machine: by ACPI, by the keyboard's controller, by the chipset, by an exception that nobody can handle.
pub(super) fn reset(power: Option<&Power>, timer: &Timer) -> ! {
    const KEYBOARD: u16 = 0x64;
    const PULSE_RESET: u8 = 0xfe;
    const RESET_CONTROL: u16 = 0xcf9;
    const FULL_RESET: u8 = 0x0e;
    let acpi = power.and_then(|power| power.reset);
    for (port, value) in acpi.into_iter().chain([(KEYBOARD, PULSE_RESET), (RESET_CONTROL, FULL_RESET)]) {
        // SAFETY: these are the ports by which PCs are reset.
        unsafe { Port::<u8>::new(port).write(value) };
        timer.sleep_s(1);
    }
    let nothing = DescriptorTablePointer { limit: 0, base: x86_64::VirtAddr::zero() };
    // SAFETY: without descriptors the next exception shuts the processor down, which is what is wanted.
    unsafe {
        lidt(&nothing);
        core::arch::asm!("ud2", options(noreturn));
    }
}

/// Stops the processor.
pub(super) fn halt() -> ! {
    interrupts::disable();
    loop {
        hlt();
    }
}
