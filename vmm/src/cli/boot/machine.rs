//! The machine that QEMU makes, as its command line.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, ValueEnum};

/// Which QEMU, and how it runs.
#[derive(Args)]
pub(crate) struct MachineArgs {
    /// What executes instructions: QEMU itself, on any machine, or KVM.
    #[arg(long, value_name = "HOW", default_value = "tcg")]
    accel: Accelerator,
    /// Processor model, as `qemu-system-x86_64 -cpu help` lists them.
    #[arg(long, value_name = "MODEL", default_value = "max")]
    cpu: String,
    /// The program. A script has to `exec` it, or it is left behind when mote is killed (SIGKILL).
    #[arg(long, value_name = "PATH", default_value = "qemu-system-x86_64")]
    pub(crate) qemu: PathBuf,
    /// One more argument for QEMU, as --qemu-arg=-d --qemu-arg=int --qemu-arg=-D --qemu-arg=FILE; may be repeated.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    qemu_arg: Vec<OsString>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Accelerator {
    Tcg,
    Kvm,
}

/// Where the lines of the machine lead, as QEMU's character devices.
pub(crate) struct Lines {
    /// COM1.
    pub(crate) console: String,
    /// COM2.
    pub(crate) record: String,
}

impl Lines {
    /// To streams of the process, and to this channel.
    pub(crate) fn piped(record: String) -> Self {
        // A signal is for the parent, which decides; and no key means anything to QEMU.
        Self { console: "stdio,signal=off".into(), record }
    }
}

impl MachineArgs {
    /// All arguments for a machine with nothing but these lines, a clock, a way to end and what `boot` adds.
    pub(crate) fn line(&self, memory: &str, lines: &Lines, boot: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
        let accelerator = match self.accel {
            Accelerator::Tcg => "tcg",
            Accelerator::Kvm => "kvm",
        };
        let Lines { console, record } = lines;
        let (console, record) = (with_id(console, "console"), with_id(record, "record"));
        let mut line: Vec<OsString> = Vec::new();
        let mut option = |name: &str, value: &str| line.extend([name.into(), value.into()]);
        option("-machine", "q35");
        option("-accel", accelerator);
        option("-cpu", &self.cpu);
        option("-m", memory);
        line.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(OsString::from));
        let mut option = |name: &str, value: &str| line.extend([name.into(), value.into()]);
        option("-display", "none");
        option("-chardev", &console);
        option("-serial", "chardev:console");
        option("-chardev", &record);
        option("-serial", "chardev:record");
        option("-device", "isa-debug-exit,iobase=0xf4,iosize=0x04");
        line.extend(boot);
        line.extend(self.qemu_arg.iter().cloned());
        line
    }
}

/// Its kind comes first, then its name.
fn with_id(backend: &str, id: &str) -> String {
    match backend.split_once(',') {
        Some((kind, rest)) => format!("{kind},id={id},{rest}"),
        None => format!("{backend},id={id}"),
    }
}

/// RAM of a machine, unless another size is given: as for `mote run`.
pub(crate) const RAM_BYTES: u64 = 1 << 30;

/// RAM as QEMU takes it: whole KiB.
pub(crate) fn memory(bytes: Option<u64>) -> String {
    const MIB: u64 = 1 << 20;
    let bytes = bytes.unwrap_or(RAM_BYTES);
    if bytes.is_multiple_of(MIB) { format!("{}M", bytes / MIB) } else { format!("{}K", bytes.div_ceil(1024)) }
}
