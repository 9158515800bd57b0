//! What a run cost.

use std::time::Duration;

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
    /// First touches of 2 MiB of demand memory.
    pub demand: u64,
    /// Signals to this thread.
    pub signal: u64,
}

impl ExitCounts {
    /// All of them.
    pub fn total(&self) -> u64 {
        let Self { end, drain_output, read_stdin, wait, files, sockets, read_clock, demand, signal } = self;
        end + drain_output + read_stdin + wait + files + sockets + read_clock + demand + signal
    }
}
