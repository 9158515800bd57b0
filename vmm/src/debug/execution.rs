//! Letting the guest go on, and where it stops.
//!
//! It stops in one of two places. At an exception it is in the stub, in ring 0: rip, rsp, flags and rax of ring 3 are in the frame,
//! where they can be changed before the stub returns. Else it is in ring 3, behind a store to the doorbell or where a kick ended
//! KVM_RUN. A kick that comes while it is in a stub does not stop it.

use std::{os::fd::AsFd, time::Instant};

use gdbstub::common::Signal;
use mote_abi::{layout::STUBS, mailbox::REQUEST};
use mote_machine::stub::Frame;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vm_memory::{Bytes, GuestAddress};

use super::{
    breakpoints::{Breakpoints, INT3},
    connection::Connection,
    registers::Registers,
    watchpoints::{Watchpoint, Watchpoints},
};
use crate::{
    control::Attached,
    ending::{Ending, GuestFault, HostFailure},
    exit::Exit,
    run::{Next, RING, stopped},
    vcpu,
    vm::{Vm, no_commands},
};

/// The flag for single steps.
const TRAP_FLAG: u64 = 1 << 8;

/// Exceptions (AMD64 Architecture Programmer's Manual, volume 2, section 8.2).
mod vector {
    pub(super) const DIVIDE: u64 = 0;
    pub(super) const DEBUG: u64 = 1;
    pub(super) const BREAKPOINT: u64 = 3;
    pub(super) const INVALID_OPCODE: u64 = 6;
    pub(super) const GENERAL_PROTECTION: u64 = 13;
    pub(super) const X87: u64 = 16;
    pub(super) const ALIGNMENT: u64 = 17;
    pub(super) const SIMD: u64 = 19;
}

/// Bit of the error code of #GP that says that a gate was the matter.
const OF_GATE: u64 = 1 << 1;

/// A guest under a debugger.
pub(super) struct Guest {
    pub(super) vm: Vm,
    attached: Option<Attached>,
    /// The frame of the stub in which it is stopped; `None` in ring 3.
    frame: Option<Frame>,
    going: Going,
    /// The request that a service was doing when the debugger stopped it: it is done from the beginning.
    unanswered: Option<u32>,
    /// The end to which the exception leads at which it is stopped, if ring 3 is left to it.
    fault: Option<Ending>,
    pub(super) breakpoints: Breakpoints,
    pub(super) watchpoints: Watchpoints,
    pub(super) has_watchpoints: bool,
    started: Instant,
}

/// How a guest goes on.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Going {
    /// By one instruction.
    pub(super) stepping: bool,
    /// With the exception at which it stopped, and not as if that had not been.
    pub(super) takes_fault: bool,
}

/// Why a guest stopped that can go on.
#[derive(Debug)]
pub(super) enum Stop {
    Breakpoint,
    Step,
    Watchpoint(Watchpoint),
    /// An exception, with the name that it has on Linux.
    Exception(Signal),
    /// The debugger says something.
    Called,
}

impl Guest {
    pub(super) fn new(vm: Vm, attached: Attached, has_watchpoints: bool) -> Self {
        Self {
            vm,
            attached: Some(attached),
            frame: None,
            going: Going::default(),
            unanswered: None,
            fault: None,
            breakpoints: Breakpoints::default(),
            watchpoints: Watchpoints::default(),
            has_watchpoints,
            started: Instant::now(),
        }
    }

    /// Lets KVM take the registers of the first entry.
    pub(super) fn prepare(&mut self) -> Result<(), Ending> {
        vcpu::finish_exit(&mut self.vm.machine.vcpu).map_err(run_failed)
    }

    pub(super) fn set_going(&mut self, going: Going) {
        self.going = going;
    }

    /// Goes on without debugger, to the end.
    pub(super) fn leave(&mut self) -> Ending {
        self.breakpoints.remove_all(&mut self.vm.machine);
        self.watchpoints.remove_all(&self.vm.machine.vcpu);
        let ended = match self.unanswered.take() {
            Some(number) => self.answer_again(number).map(drop),
            None => Ok(()),
        };
        let Some(attached) = &self.attached else { return no_commands() };
        match ended.and_then(|()| self.vm.machine.run(attached, false)) {
            Err(ending) => ending,
            Ok(_) => no_commands(),
        }
    }

    /// After the end nothing kicks the guest any more.
    pub(super) fn detach_thread(&mut self) {
        self.attached = None;
    }

    /// Enters the guest until it stops, or to its end. `connection` is where the debugger calls.
    pub(super) fn go(&mut self, connection: &Connection) -> Result<Stop, Ending> {
        if let Some(ending) = self.fault.take().filter(|_| self.going.takes_fault) {
            return Err(ending);
        }
        let pushes_flags = self.going.stepping && self.is_at_pushf()?;
        if self.going.stepping {
            self.set_trap_flag(true)?;
        }
        self.vm.machine.control.pause_on(Some(connection.fd().clone()));
        let stop = self.enter_until_stop(connection);
        self.vm.machine.control.pause_on(None);
        let stop = stop?;
        if self.going.stepping {
            self.set_trap_flag(false)?;
        }
        if pushes_flags && matches!(stop, Stop::Step) {
            self.clear_pushed_trap_flag()?;
        }
        // What it printed is there before what the debugger says.
        self.vm.machine.tick()?;
        Ok(stop)
    }

    fn enter_until_stop(&mut self, connection: &Connection) -> Result<Stop, Ending> {
        if let Some(number) = self.unanswered.take()
            && let Some(stop) = self.answer_again(number)?
        {
            return Ok(stop);
        }
        loop {
            if let Some(reason) = self.vm.machine.control.stop_reason() {
                return Err(stopped(reason));
            }
            self.vm.machine.is_parked = false;
            let exit = match self.vm.machine.vcpu.run() {
                Ok(exit) => Exit::from(exit),
                Err(error) => {
                    let Some(attached) = &self.attached else { return Err(no_commands()) };
                    self.vm.machine.run_error(error, attached)?;
                    if is_readable(connection) && !self.is_in_stub()? {
                        self.frame = None;
                        return Ok(Stop::Called);
                    }
                    continue;
                }
            };
            let stop = match exit {
                Exit::Fault { address } => self.exception(address)?,
                exit => {
                    self.frame = None;
                    // KVM emulates a store to the doorbell, and then does not tell the end of a step.
                    self.request(exit)?.or(self.going.stepping.then_some(Stop::Step))
                }
            };
            if let Some(stop) = stop {
                return Ok(stop);
            }
        }
    }

    /// Does what an exit other than an exception asks for, which the debugger can interrupt.
    fn request(&mut self, exit: Exit) -> Result<Option<Stop>, Ending> {
        let machine = &mut self.vm.machine;
        let number: u32 = machine.ram.memory().read_obj(GuestAddress(REQUEST)).map_err(unreadable)?;
        match machine.handle(exit, self.started, false) {
            Ok(Next::Enter) => Ok(None),
            Ok(Next::Event(_)) => Err(no_commands()),
            Err(Ending::Interrupted) if machine.control.stop_reason().is_none() => {
                self.unanswered = Some(number);
                Ok(Some(Stop::Called))
            }
            Err(ending) => Err(ending),
        }
    }

    /// The service took the request out of the mailbox.
    fn answer_again(&mut self, number: u32) -> Result<Option<Stop>, Ending> {
        self.vm.machine.write(REQUEST, &number.to_le_bytes())?;
        self.request(Exit::Doorbell)
    }

    fn exception(&mut self, address: u64) -> Result<Option<Stop>, Ending> {
        let frame = vcpu::exception_frame(self.vm.machine.ram.memory()).map_err(unreadable)?;
        self.frame = Some(frame);
        let of_ring_3 = frame.cs & RING == RING;
        if of_ring_3 && let Some(stop) = self.own_trap(&frame)? {
            return Ok(Some(stop));
        }
        match self.vm.machine.handle(Exit::Fault { address }, self.started, false) {
            Ok(_) => {
                let after = vcpu::exception_frame(self.vm.machine.ram.memory()).map_err(unreadable)?;
                self.frame = Some(after);
                // The kernel has a handler, and its first instruction is the next one.
                Ok((self.going.stepping && after.rip != frame.rip).then_some(Stop::Step))
            }
            Err(Ending::GuestFault(fault)) if of_ring_3 && matches!(*fault, GuestFault::Exception(_)) => {
                self.fault = Some(Ending::GuestFault(fault));
                if let Some(int3) = self.refused_int3(&frame) {
                    // As #BP is told.
                    self.set_frame(Frame { rip: int3.wrapping_add(1), ..frame })?;
                    return Ok(Some(Stop::Exception(Signal::SIGTRAP)));
                }
                Ok(Some(Stop::Exception(signal(frame.vector))))
            }
            Err(ending) => Err(ending),
        }
    }

    /// Whether the exception is of a breakpoint, a watchpoint or a step.
    fn own_trap(&mut self, frame: &Frame) -> Result<Option<Stop>, Ending> {
        if frame.vector == vector::DEBUG {
            let hit = self.watchpoints.hit(&self.vm.machine.vcpu).map(Stop::Watchpoint);
            return Ok(hit.or(self.going.stepping.then_some(Stop::Step)));
        }
        let int3 = match frame.vector {
            // It is told behind the instruction.
            vector::BREAKPOINT => Some(frame.rip.wrapping_sub(1)),
            _ => self.refused_int3(frame),
        };
        let Some(rip) = int3.filter(|address| self.breakpoints.contains(*address)) else { return Ok(None) };
        self.set_frame(Frame { rip, ..*frame })?;
        Ok(Some(Stop::Breakpoint))
    }

    /// Where the `int3` is that raised a #GP: the gate of #BP is closed to ring 3, as all are. Where KVM works without hardware
    /// support, #BP comes all the same. A processor tells the instruction, and its vector in the error code; QEMU's has another
    /// vector there, and is behind the instruction at times.
    fn refused_int3(&self, frame: &Frame) -> Option<u64> {
        let is_int3 = |address: &u64| {
            let mut byte = [0];
            self.vm.machine.read_virtual(*address, &mut byte) == byte.len() && byte == [INT3]
        };
        let is_of_gate = frame.vector == vector::GENERAL_PROTECTION && frame.error_code & OF_GATE != 0;
        [frame.rip, frame.rip.wrapping_sub(1)].into_iter().find(is_int3).filter(|_| is_of_gate)
    }

    fn set_trap_flag(&mut self, on: bool) -> Result<(), Ending> {
        let flags = |rflags: u64| if on { rflags | TRAP_FLAG } else { rflags & !TRAP_FLAG };
        if let Some(frame) = self.frame {
            return self.set_frame(Frame { rflags: flags(frame.rflags), ..frame });
        }
        let vcpu = &self.vm.machine.vcpu;
        let mut registers = vcpu.get_regs().map_err(run_failed)?;
        if flags(registers.rflags) != registers.rflags {
            registers.rflags = flags(registers.rflags);
            vcpu.set_regs(&registers).map_err(run_failed)?;
        }
        Ok(())
    }

    /// Whether the next instruction pushes the flags.
    fn is_at_pushf(&self) -> Result<bool, Ending> {
        let (rip, _) = self.place()?;
        let mut code = [0; 2];
        let read = self.vm.machine.read_virtual(rip, &mut code);
        Ok(matches!((code, read), ([0x9c, _], 1 | 2) | ([0x66, 0x9c], 2)))
    }

    /// A guest that looks at its flags sees no trap flag, which it might set later.
    fn clear_pushed_trap_flag(&mut self) -> Result<(), Ending> {
        let (_, rsp) = self.place()?;
        let (second, mut byte) = (rsp.wrapping_add(1), [0]);
        if self.vm.machine.read_virtual(second, &mut byte) == byte.len() {
            let cleared = byte.map(|byte| byte & !TRAP_FLAG.to_le_bytes()[1]);
            let _it_was_pushed_there = self.vm.machine.write_virtual(second, &cleared);
        }
        Ok(())
    }

    /// Instruction pointer and stack pointer of ring 3.
    fn place(&self) -> Result<(u64, u64), Ending> {
        if let Some(frame) = self.frame {
            return Ok((frame.rip, frame.rsp));
        }
        let registers = self.vm.machine.vcpu.get_regs().map_err(run_failed)?;
        Ok((registers.rip, registers.rsp))
    }

    fn set_frame(&mut self, frame: Frame) -> Result<(), Ending> {
        self.frame = Some(frame);
        vcpu::set_exception_frame(self.vm.machine.ram.memory(), &frame).map_err(unreadable)
    }

    fn is_in_stub(&self) -> Result<bool, Ending> {
        Ok(STUBS.contains(self.vm.machine.vcpu.get_regs().map_err(run_failed)?.rip))
    }

    /// All registers, and the frame that some of them are in.
    pub(super) fn registers(&self) -> Result<(Registers, Option<Frame>), kvm_ioctls::Error> {
        let vcpu = &self.vm.machine.vcpu;
        let registers = Registers { general: vcpu.get_regs()?, special: vcpu.get_sregs()?, extended: vcpu.get_xsave()? };
        Ok((registers, self.frame))
    }

    pub(super) fn set_registers(&mut self, registers: &Registers, frame: Option<Frame>) -> Result<(), kvm_ioctls::Error> {
        let vcpu = &self.vm.machine.vcpu;
        vcpu.set_regs(&registers.general)?;
        // SAFETY: KVM takes as many bytes as the structure has, as `Debuggee::new` found out when there was this vCPU.
        unsafe { vcpu.set_xsave(&registers.extended)? };
        match frame.map(|frame| self.set_frame(frame)) {
            None | Some(Ok(())) => Ok(()),
            Some(Err(_)) => Err(kvm_ioctls::Error::new(libc::EFAULT)),
        }
    }
}

/// What an exception is called by debuggers.
fn signal(vector: u64) -> Signal {
    match vector {
        vector::DIVIDE | vector::X87 | vector::SIMD => Signal::SIGFPE,
        vector::DEBUG | vector::BREAKPOINT => Signal::SIGTRAP,
        vector::INVALID_OPCODE => Signal::SIGILL,
        vector::ALIGNMENT => Signal::SIGBUS,
        _ => Signal::SIGSEGV,
    }
}

fn is_readable(connection: &Connection) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(connection.fd().as_fd(), PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

fn unreadable(error: vm_memory::GuestMemoryError) -> Ending {
    HostFailure::Machine(error.to_string()).into()
}

fn run_failed(error: kvm_ioctls::Error) -> Ending {
    HostFailure::Run(error.into()).into()
}
