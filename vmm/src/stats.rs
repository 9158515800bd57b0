//! What a run cost.

use std::time::Duration;

use crate::sandbox::{CallError, Poison};

/// Costs of a run.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Where time went.
    pub phases: Phases,
    /// Exits of the vCPU.
    pub exits: ExitCounts,
    /// Fuel used, 0 if none was given.
    pub fuel_used: u64,
    /// Guest RAM that was touched, page tables included.
    pub touched_bytes: u64,
    /// Guest RAM that could have been touched.
    pub ram_bytes: u64,
}

/// Time of each phase of a VM. Those inside the guest are what the guest says.
#[derive(Debug, Clone, Copy, Default)]
pub struct Phases {
    /// Making the VM: memory, tables, vCPU.
    pub create: Duration,
    /// First entry until the guest kernel ran.
    pub enter: Duration,
    /// Parsing and validating the module.
    pub parse: Duration,
    /// Linking and instantiating it.
    pub instantiate: Duration,
    /// Running it, host calls included.
    pub run: Duration,
    /// Writing out what output was left.
    pub flush: Duration,
}

/// Exits of the vCPU by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExitCounts {
    /// The end of the run.
    pub end: u64,
    /// A full output ring.
    pub drain_output: u64,
    /// Reads of standard input.
    pub read_stdin: u64,
    /// Sleeps and waits.
    pub wait: u64,
    /// Requests about files and directories.
    pub files: u64,
    /// Requests about sockets.
    pub sockets: u64,
    /// Clock readings, on machines without an invariant time-stamp counter.
    pub read_clock: u64,
    /// Exceptions of compiled code that its kernel handled: traps.
    pub exceptions: u64,
    /// Initial contents of linear memories that were copied out of compiled modules.
    pub copy_module: u64,
    /// First touches of 2 MiB of demand memory.
    pub demand: u64,
    /// Commands that the guest was done with: calls, mostly.
    pub returns: u64,
    /// Calls of functions of the host.
    pub host_calls: u64,
    /// Signals to this thread: kicks, and ticks, which come every 20 ms, more often in the first 40 ms of a call.
    pub signal: u64,
}

impl ExitCounts {
    /// All of them, with their names.
    pub fn named(&self) -> [(&'static str, u64); 13] {
        // Whole, so that none is left out that is added.
        let Self {
            end,
            drain_output,
            read_stdin,
            wait,
            files,
            sockets,
            read_clock,
            demand,
            exceptions,
            copy_module,
            returns,
            host_calls,
            signal,
        } = *self;
        [
            ("end", end),
            ("drain_output", drain_output),
            ("read_stdin", read_stdin),
            ("wait", wait),
            ("files", files),
            ("sockets", sockets),
            ("read_clock", read_clock),
            ("demand", demand),
            ("exceptions", exceptions),
            ("copy_module", copy_module),
            ("returns", returns),
            ("host_calls", host_calls),
            ("signal", signal),
        ]
    }

    /// How many there are together.
    pub fn total(&self) -> u64 {
        self.named().iter().map(|(_, count)| count).sum()
    }
}

/// What happened to a sandbox, counted from its making.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Times that the guest was entered for something: calls, and what else was asked of it.
    pub calls: u64,
    /// Calls of functions of the host.
    pub host_calls: u64,
    /// Calls that ended by a trap.
    pub traps: u64,
    /// Calls that ended by an error of a function of the host.
    pub host_errors: u64,
    /// Calls in which the program ended itself.
    pub exits: u64,
    /// Calls that met their deadline.
    pub deadlines: u64,
    /// Calls that were interrupted.
    pub interrupts: u64,
    /// Calls that ended by a failure of guest or host.
    pub faults: u64,
    /// Snapshots that were taken.
    pub snapshots: u64,
    /// Times that the sandbox went back to one.
    pub restores: u64,
    /// Pages of 4 KiB that were copied back for that.
    pub restored_pages: u64,
    /// Pages of 4 KiB that were given up for that.
    pub dropped_pages: u64,
}

impl Counters {
    /// Counts a call that did not return.
    pub(crate) fn count(&mut self, error: &CallError) {
        match error.poison() {
            Some(Poison::Trapped) => self.traps += 1,
            Some(Poison::HostError) => self.host_errors += 1,
            Some(Poison::Exited) => self.exits += 1,
            Some(Poison::DeadlineExceeded) => self.deadlines += 1,
            Some(Poison::Interrupted) => self.interrupts += 1,
            Some(Poison::Fault) => self.faults += 1,
            None => {}
        }
    }
}
