//! `mote image`: a disk image that boots a module on a machine of its own; and a trial boot of one.

mod build;
mod tools;
mod verify;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use clap::Args;

use super::{
    arguments::GuestArgs,
    boot::{
        self,
        load::{self, Target},
        machine::MachineArgs,
        words::Words,
    },
    failure::Failure,
    guest::utf8,
    print,
};

const DETAILS: &str = "\
The image is written to a USB stick, SD card or eMMC as it is, as by `dd if=disk.img of=/dev/sdX bs=1M conv=fsync`, and boots on \
x86-64 by BIOS and by UEFI without Secure Boot. The program's console is COM1, 115200 baud, for a person at a terminal; --cmdline \
says otherwise (docs/boot.md has the words, docs/boards.md the rest). The same inputs give the same bytes.

Needed are, in Debian's packages, grub-common, grub-pc-bin, grub-efi-amd64-bin, xorriso and mtools; for --verify qemu-system-x86 and \
ovmf.

Exit status:
  0    the image is there; or it boots, and its program ended by itself, whatever its status is
  2    the command line is wrong
  125  a tool is missing or failed, the image cannot be written; or it does not boot
  126  the module cannot be put into an image
  137  interrupted by SIGINT, SIGTERM or SIGHUP";

/// What an image has in it, so that it cannot be said when one is booted.
const SETTLED: [&str; 14] = [
    "command",
    "output",
    "cmdline",
    "no_terminal",
    "invoke",
    "env",
    "dir",
    "dir_ro",
    "ramdisk",
    "max_wasm_memory",
    "fuel",
    "argv0",
    "engine",
    "kernel",
];

#[derive(Args)]
#[command(
    after_help = DETAILS,
    override_usage = "mote image [OPTIONS] -o DISK.img MODULE [-- ARGS...]\n       mote image --verify DISK.img [--firmware WHICH]",
    mut_arg("dir", |argument| argument.hide(true)),
    mut_arg("engine", |argument| argument.help("What runs the module; auto is the interpreter, unless it lacks something that the module needs")),
    mut_arg("kernel", |argument| argument.help("Put in this kernel image instead of the built-in one")),
    mut_arg("log", |argument| argument.help("Log: mote's to standard error, the guest kernel's to its console")),
    mut_arg("dir_ro", |argument| argument.hide(true)),
    mut_arg("memory", |argument| argument.help("RAM of the machine for --verify [default: 1GiB]")),
    mut_arg("timeout", |argument| argument.help("How long --verify waits for the end of the program [default: 1min]"))
)]
pub(crate) struct ImageArgs {
    /// A `.wasm` or `.wat` file, compiled or not, or `-` for standard input; then the arguments of the program, or of the function
    /// that --invoke names. Options can stand behind MODULE, so arguments that begin with a hyphen go behind `--`.
    #[arg(value_name = "MODULE", required_unless_present = "verify", num_args = 1.., allow_negative_numbers = true)]
    command: Vec<OsString>,
    /// Where the image goes. What is there is replaced when the new one is whole.
    #[arg(short, long, value_name = "DISK.img", required_unless_present = "verify", conflicts_with_all = ["qemu", "accel", "cpu", "qemu_arg"])]
    output: Option<PathBuf>,
    /// Boot this image in QEMU, and report what its program printed and how it ended. Nothing is written to it.
    #[arg(long, value_name = "DISK.img", conflicts_with_all = SETTLED)]
    verify: Option<PathBuf>,
    /// What boots it for --verify [default: both].
    #[arg(long, value_name = "WHICH")]
    firmware: Option<verify::FirmwareArg>,
    /// Words for the kernel's command line, as "exit=reboot watchdog=ib700,30" (docs/boot.md). They count where an option says something
    /// else.
    #[arg(long, value_name = "WORDS", allow_hyphen_values = true)]
    cmdline: Option<String>,
    /// The console is for a machine at its other end: no CR before LF, no echo, no Ctrl-D.
    #[arg(long)]
    no_terminal: bool,
    /// Call this export instead of the start function, with ARGS parsed by its type, and print its results.
    #[arg(long, value_name = "FUNCTION")]
    invoke: Option<String>,
    /// Processors that --engine aot compiles for, as `mote compile` has them.
    #[cfg(feature = "compiled")]
    #[arg(long, value_name = "CPU", default_value = "x86-64", conflicts_with = "verify")]
    target_cpu: Target,
    #[command(flatten)]
    pub(crate) guest: GuestArgs,
    #[command(flatten)]
    machine: MachineArgs,
}

impl ImageArgs {
    #[cfg(feature = "compiled")]
    fn target(&self) -> Target {
        self.target_cpu
    }

    #[cfg(not(feature = "compiled"))]
    fn target(&self) -> Target {}
}

/// Makes the image, or boots one; the exit status of the process.
pub(crate) fn main(arguments: &ImageArgs) -> u8 {
    let result = match &arguments.verify {
        Some(image) => verify::verify(arguments, image),
        None => execute(arguments),
    };
    result.unwrap_or_else(|failure| failure.tell())
}

fn execute(arguments: &ImageArgs) -> Result<u8, Failure> {
    let guest = &arguments.guest;
    boot::refuse(
        "image",
        &[
            ("--dir", !guest.dir.is_empty(), boot::ONLY_RAMDISK),
            ("--dir-ro", !guest.dir_ro.is_empty(), boot::ONLY_RAMDISK),
            ("--firmware", arguments.firmware.is_some(), "an image boots by both; it is for --verify"),
            ("--memory", guest.memory.is_some(), "the program has the RAM of the board (--max-wasm-memory bounds its memories)"),
            ("--timeout", guest.timeout.is_some(), "no host stops the program (--fuel and the word `watchdog` bound it)"),
        ],
    )?;
    let module = arguments.command.first().map(PathBuf::from).unwrap_or_default();
    let output = arguments.output.clone().unwrap_or_default();
    let command_line = command_line(arguments, &module)?;
    // Compiling can take long, so what is missing is told before.
    let tools = tools::Tools::find()?;
    let files = load::load(guest, &module, arguments.target())?;
    let parts = build::build(&tools, &files, &command_line, &output)?;
    print(build::table(&parts).as_bytes())?;
    Ok(0)
}

/// What the kernel is told: what suits a board, unless something else was given.
fn command_line(arguments: &ImageArgs, module: &Path) -> Result<String, Failure> {
    let given = Words::parse("--cmdline", arguments.cmdline.as_deref().unwrap_or_default())?;
    let mut words = Words::default();
    if !arguments.no_terminal && !given.has("terminal") {
        words.push("terminal", None);
    }
    words.extend(boot::program_words(&arguments.guest, module, arguments.invoke.as_deref(), given)?);
    words.push_default("exit", "poweroff");
    // A line that nobody reads does no harm, and one that is not there is left alone.
    words.push_default("record", "com2");
    let program_arguments = utf8(arguments.command.iter().skip(1).cloned())?;
    Ok(words.text(&program_arguments))
}
