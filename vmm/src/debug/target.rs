//! What the remote protocol asks of a guest.

use std::convert::Infallible;

use gdbstub::{
    common::Signal,
    target::{
        Target, TargetError, TargetResult,
        ext::{
            base::{
                BaseOps,
                singlethread::{
                    SingleThreadBase, SingleThreadResume, SingleThreadResumeOps, SingleThreadSingleStep,
                    SingleThreadSingleStepOps,
                },
            },
            breakpoints::{Breakpoints, BreakpointsOps, HwWatchpoint, HwWatchpointOps, SwBreakpoint, SwBreakpointOps, WatchKind},
        },
    },
};
use gdbstub_arch::x86::{X86_64_SSE, reg::X86_64CoreRegs};

use super::{
    execution::{Going, Guest},
    watchpoints::Watchpoint,
};

/// Error numbers that debuggers show: those of Linux.
mod error {
    pub(super) const IO: u8 = 5;
    /// No memory there, or none that can be written.
    pub(super) const FAULT: u8 = 14;
    /// Registers as ring 3 cannot have them.
    pub(super) const INVALID: u8 = 22;
}

impl Target for Guest {
    type Arch = X86_64_SSE;
    /// What ends the run is told by the stop that is none.
    type Error = Infallible;

    fn base_ops(&mut self) -> BaseOps<'_, X86_64_SSE, Infallible> {
        BaseOps::SingleThread(self)
    }

    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadBase for Guest {
    fn read_registers(&mut self, registers: &mut X86_64CoreRegs) -> TargetResult<(), Self> {
        let (all, frame) = self.registers().map_err(|_| TargetError::Errno(error::IO))?;
        *registers = all.to_gdb(frame.as_ref());
        Ok(())
    }

    fn write_registers(&mut self, registers: &X86_64CoreRegs) -> TargetResult<(), Self> {
        let (mut all, mut frame) = self.registers().map_err(|_| TargetError::Errno(error::IO))?;
        all.take(frame.as_mut(), registers).ok_or(TargetError::Errno(error::INVALID))?;
        self.set_registers(&all, frame).map_err(|_| TargetError::Errno(error::INVALID))
    }

    fn read_addrs(&mut self, address: u64, bytes: &mut [u8]) -> TargetResult<usize, Self> {
        match self.vm.machine.read_virtual(address, bytes) {
            0 => Err(TargetError::Errno(error::FAULT)),
            read => {
                self.breakpoints.hide(address, bytes.get_mut(..read).unwrap_or_default());
                Ok(read)
            }
        }
    }

    fn write_addrs(&mut self, address: u64, bytes: &[u8]) -> TargetResult<(), Self> {
        let written = self.breakpoints.write(&mut self.vm.machine, address, bytes);
        written.ok_or(TargetError::Errno(error::FAULT))
    }

    fn support_resume(&mut self) -> Option<SingleThreadResumeOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadResume for Guest {
    fn resume(&mut self, signal: Option<Signal>) -> Result<(), Infallible> {
        self.set_going(Going { stepping: false, takes_fault: signal.is_some() });
        Ok(())
    }

    fn support_single_step(&mut self) -> Option<SingleThreadSingleStepOps<'_, Self>> {
        Some(self)
    }
}

impl SingleThreadSingleStep for Guest {
    fn step(&mut self, signal: Option<Signal>) -> Result<(), Infallible> {
        self.set_going(Going { stepping: true, takes_fault: signal.is_some() });
        Ok(())
    }
}

impl Breakpoints for Guest {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }

    /// Also where there are none: a debugger that is told so nicely would go on in single steps.
    fn support_hw_watchpoint(&mut self) -> Option<HwWatchpointOps<'_, Self>> {
        Some(self)
    }
}

impl SwBreakpoint for Guest {
    fn add_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.breakpoints.add(&mut self.vm.machine, address).is_some())
    }

    fn remove_sw_breakpoint(&mut self, address: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.breakpoints.remove(&mut self.vm.machine, address).is_some())
    }
}

impl HwWatchpoint for Guest {
    fn add_hw_watchpoint(&mut self, address: u64, bytes: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        let watchpoint = Watchpoint { address, bytes, kind };
        Ok(self.has_watchpoints && self.watchpoints.add(&self.vm.machine.vcpu, watchpoint).is_some())
    }

    fn remove_hw_watchpoint(&mut self, address: u64, bytes: u64, kind: WatchKind) -> TargetResult<bool, Self> {
        let watchpoint = Watchpoint { address, bytes, kind };
        Ok(self.watchpoints.remove(&self.vm.machine.vcpu, watchpoint).is_some())
    }
}
