//! Exceptions: the doorbell, demands for memory, faults of compiled code, and all others, which end the run.

use core::fmt;

use mote_abi::{
    announce,
    boot::{Exception, status_offset},
    layout::{DOORBELL, HOST_STATUS, MODULE},
};
use mote_machine::names::Fault;
use x86_64::registers::control::Cr2;

use super::{Monitor, entry::Registers, machine::Demand, memory::View, service};
use crate::entry::{resume, ring_doorbell};

const PAGE_FAULT: u64 = 14;
/// Error code bits: the page was present; the access was a write, by ring 3, an instruction fetch.
const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const FETCH: u64 = 1 << 4;
/// Both functions around the doorbell are shorter.
const DOORBELL_CODE_BYTES: u64 = 64;

/// What every exception comes to.
pub(super) extern "C" fn handle(registers: &mut Registers) {
    let address = Cr2::read_raw();
    // SAFETY: the exception is of ring 3, where no reference to the monitor exists; or of the monitor itself, which then does
    // not go on.
    let monitor = unsafe { Monitor::get() };
    if registers.cs & 3 != 3 {
        monitor.fail(format_args!("the monitor faulted: {}", Report { registers, address }));
    }
    monitor.watchdog.feed();
    if registers.vector == PAGE_FAULT && registers.error_code & (PRESENT | FETCH) == 0 {
        if rings(registers, address) {
            service::answer(monitor);
            registers.rip = resume as *const () as u64;
            return;
        }
        match monitor.machine.give(address) {
            Demand::Mapped => return,
            Demand::Exhausted => {
                super::ring::drain_what_is_there(monitor);
                monitor.exhausted()
            }
            Demand::None => {}
        }
    }
    if let Some(handler) = handler(registers) {
        let exception = Exception { vector: registers.vector, rip: registers.rip, address };
        View::store(HOST_STATUS.start + status_offset::EXCEPTION, exception);
        registers.rip = handler;
        return;
    }
    let report = Report { registers, address };
    let is_overflow = report.fault().is_stack_overflow();
    let what = if is_overflow { "the guest kernel's stack overflowed" } else { "the guest kernel faulted" };
    monitor.fail(format_args!("{what}: {report}"))
}

/// Whether the kernel rings the doorbell: by the one instruction of it that does, as another one could not be gone on behind.
fn rings(registers: &Registers, address: u64) -> bool {
    let code = ring_doorbell as *const () as u64;
    DOORBELL.contains(address)
        && registers.error_code & (WRITE | USER) == WRITE | USER
        && (code..code + DOORBELL_CODE_BYTES).contains(&registers.rip)
}

/// Where an exception in compiled code goes on, if the kernel has a handler.
fn handler(registers: &Registers) -> Option<u64> {
    let handler: u64 = View::load(announce::HANDLER);
    // `iretq` faults in ring 0 on an address that is not canonical.
    (MODULE.contains(registers.rip) && handler != 0 && handler < 1 << 47).then_some(handler)
}

/// An exception with all registers.
struct Report<'a> {
    registers: &'a Registers,
    address: u64,
}

impl Report<'_> {
    fn fault(&self) -> Fault {
        let Registers { vector, error_code, rip, rsp, rflags, .. } = *self.registers;
        Fault { vector, error_code, rip, rsp, rflags, address: self.address }
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fault().fmt(f)?;
        let Registers { rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15, .. } = *self.registers;
        let names = ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];
        let values = [rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15];
        for (name, value) in names.into_iter().zip(values) {
            write!(f, ", {name} {value:#x}")?;
        }
        Ok(())
    }
}
