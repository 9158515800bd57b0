//! A trial boot of an image in QEMU, by the firmware of a PC.

use std::{
    ffi::OsString,
    io::{self, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::Context;
use clap::ValueEnum;
use mote_vmm::Ending;
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    pipe::{PipeFlags, pipe_with},
};

use super::{
    super::{
        boot::{
            self,
            machine::{self, Lines},
            process::{self, RecordChannel},
            watch::{End, Observed, SWITCH_OFF, Watch},
        },
        failure::{Failure, judge},
        guest::{has_signal, shown, signals},
        print, status,
    },
    ImageArgs, build, tools,
};

/// Until the program has to end, unless --timeout says otherwise.
const TIME: Duration = Duration::from_secs(60);
/// Kept of what a machine prints.
const MOST_KEPT: usize = 1 << 20;
/// UEFI for virtual machines, with room for its variables in one file, and Debian's package.
const OVMF: ([&str; 2], &str) = (["/usr/share/ovmf/OVMF.fd", "/usr/share/qemu/OVMF.fd"], "ovmf");
/// Where QEMU is looked for, if it is not named otherwise.
const QEMU: (&str, &str) = ("qemu-system-x86_64", "qemu-system-x86");

/// What `--firmware` can say.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FirmwareArg {
    /// SeaBIOS, which is part of QEMU.
    Bios,
    /// OVMF.
    Uefi,
    /// One after the other.
    Both,
}

/// Boots it by each firmware; the exit status.
pub(super) fn verify(arguments: &ImageArgs, image: &Path) -> Result<u8, Failure> {
    let firmware = firmware(arguments)?;
    // QEMU takes what it can read of a device or directory for a disk, too.
    let metadata = image.metadata().with_context(|| format!("cannot read {}", shown(image)))?;
    if metadata.is_dir() {
        return Err(Failure::of_host(anyhow::anyhow!("{} is a directory", shown(image))));
    }
    let signals = signals()?;
    let mut all = 0;
    for (name, file) in firmware {
        if has_signal(&signals, Duration::ZERO) {
            return Err(interrupted());
        }
        let (observed, printed) = boot(arguments, image, file.as_deref(), &signals)?;
        match (judge_end(observed), printed) {
            (Ok(verdict), printed) => report(name, &verdict, printed, &signals)?,
            (Err(failure), printed) => {
                report(name, "it did not end as it should", printed, &signals)?;
                let Failure { status, error } = failure;
                let failure = Failure { status, error: error.context(format!("{}: {name}", shown(image))) };
                all = failure.tell();
                if status == status::INTERRUPTED {
                    break;
                }
            }
        }
    }
    Ok(all)
}

/// Names, and the files that QEMU does not have itself.
fn firmware(arguments: &ImageArgs) -> Result<Vec<(&'static str, Option<PathBuf>)>, Failure> {
    let wanted = arguments.firmware.unwrap_or(FirmwareArg::Both);
    let mut missing = tools::Missing::default();
    if arguments.machine.qemu == Path::new(QEMU.0) {
        missing.program(QEMU);
    }
    let mut firmware = Vec::new();
    if wanted != FirmwareArg::Uefi {
        firmware.push(("BIOS", None));
    }
    if wanted != FirmwareArg::Bios {
        firmware.push(("UEFI", Some(missing.file(&OVMF.0, OVMF.1))));
    }
    missing.tell().map(|()| firmware)
}

/// One boot, and what the console printed behind the loader's last words.
fn boot(arguments: &ImageArgs, image: &Path, firmware: Option<&Path>, signals: &OwnedFd) -> Result<(Observed, Vec<u8>), Failure> {
    let records = RecordChannel::new()?;
    let mut options: Vec<OsString> = Vec::new();
    if let Some(file) = firmware {
        options.extend(["-bios".into(), file.into()]);
    }
    options.extend(["-drive".into(), drive(image)]);
    let memory = machine::memory(arguments.guest.memory);
    let line = arguments.machine.line(&memory, &Lines::piped(records.backend()), options);
    let running = process::start(&arguments.machine.qemu, &line, &[], records)?;
    let printed = Kept::default();
    let deadline = Some(arguments.guest.timeout.unwrap_or(TIME));
    let signals = signals.try_clone().context("cannot duplicate a pipe")?;
    let watch = Watch { input: io::empty(), output: printed.clone(), deadline, signals, switch_off: SWITCH_OFF };
    let observed = watch.until_end(running)?;
    let Output { bytes, more } = printed.take();
    let mut printed = if firmware.is_some() { program_output(&bytes).to_vec() } else { bytes };
    if more > 0 {
        printed.extend(format!("… {more} more bytes\n").as_bytes());
    }
    Ok((observed, printed))
}

/// As a disk that keeps nothing of what is written to it. A comma in a value is written twice.
fn drive(image: &Path) -> OsString {
    let mut option = OsString::from("format=raw,if=ide,snapshot=on,file=");
    let mut parts = image.as_os_str().as_encoded_bytes().split(|byte| *byte == b',').map(<[u8]>::to_vec);
    let mut name = parts.next().unwrap_or_default();
    for part in parts {
        name.extend_from_slice(b",,");
        name.extend(part);
    }
    option.push(<OsString as std::os::unix::ffi::OsStringExt>::from_vec(name));
    option
}

/// What comes behind the loader's last words and their line's end, where UEFI has its console on the program's line. A BIOS has none
/// there: all of it is the program's.
fn program_output(console: &[u8]) -> &[u8] {
    let words = build::LAST_WORDS.as_bytes();
    let Some(at) = console.windows(words.len()).position(|window| window == words) else { return console };
    let rest = console.get(at + words.len()..).unwrap_or_default();
    rest.strip_prefix(b"\n\r").or(rest.strip_prefix(b"\r\n")).unwrap_or(rest)
}

/// What to report, if the program came to its own end.
fn judge_end(observed: Observed) -> Result<String, Failure> {
    let failure = |text: String| boot::failed(text, &observed.complaints);
    match observed.end {
        End::Told(end) => match judge(&end.ending) {
            (status, None) => Ok(format!("the program ended with status {status}")),
            (_, Some(message)) => Err(failure(message)),
        },
        End::Failed(text) => Err(failure(format!("the kernel cannot run the program: {text}"))),
        End::DeadlineExceeded if observed.phases.is_none() => {
            Err(failure("the kernel did not start in the time of --timeout, 60 s unless another was given".into()))
        }
        End::DeadlineExceeded => {
            Err(failure("the program did not end in the time of --timeout, 60 s unless another was given".into()))
        }
        End::Interrupted => Err(interrupted()),
        End::OutputLost(error) => Err(Failure::of_host(error)),
        End::Silent(status) => Err(failure(format!("the machine stopped ({status}) before the guest told how the run ended"))),
    }
}

fn interrupted() -> Failure {
    let (status, message) = judge(&Ending::Interrupted);
    Failure { status, error: anyhow::Error::msg(message.unwrap_or_default()) }
}

fn report(firmware: &str, verdict: &str, printed: Vec<u8>, signals: &OwnedFd) -> Result<(), Failure> {
    let head = match *printed {
        [] => format!("{firmware}: {verdict}; it printed nothing\n"),
        _ => format!("{firmware}: {verdict}; it printed:\n"),
    };
    let end: &[u8] = if matches!(*printed, [] | [.., b'\n']) { b"" } else { b"\n" };
    print_unless_signal([head.as_bytes(), &printed, end].concat(), signals)
}

/// Whoever waits for a reader can be interrupted.
fn print_unless_signal(bytes: Vec<u8>, signals: &OwnedFd) -> Result<(), Failure> {
    let (printed, waits) = pipe_with(PipeFlags::CLOEXEC).context("cannot make a pipe")?;
    let writer = thread::Builder::new().spawn(move || {
        let result = print(&bytes);
        drop(waits);
        result
    });
    let writer = writer.context("cannot start a thread")?;
    let mut fds = [PollFd::new(&printed, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
    while matches!(poll(&mut fds, None), Err(Errno::INTR)) {}
    if fds[0].revents().is_empty() {
        return Err(interrupted());
    }
    writer.join().unwrap_or_else(|_| Err(anyhow::anyhow!("cannot write standard output")))?;
    Ok(())
}

/// What is written, kept for later.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Output>>);

#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    /// So many came behind these.
    more: usize,
}

impl Kept {
    fn take(&self) -> Output {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut output = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = bytes.len().min(MOST_KEPT - output.bytes.len());
        output.bytes.extend(bytes.iter().take(kept));
        output.more += bytes.len() - kept;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_output_begins_behind_the_loaders() {
        assert_eq!(program_output(b"\x1b[2JGRUB\n\r\rmote: starting\n\r\nmine\n"), b"\nmine\n");
        assert_eq!(program_output(b"mote: starting\r\nmote: starting\n"), b"mote: starting\n");
        assert_eq!(program_output(b"mine\n"), b"mine\n");
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let mut kept = Kept::default();
        for _ in 0..3 {
            kept.write_all(&vec![b'x'; MOST_KEPT / 2 + 1]).unwrap();
        }
        let Output { bytes, more } = kept.take();
        assert_eq!((bytes.len(), more), (MOST_KEPT, MOST_KEPT / 2 + 3));
    }

    #[test]
    fn commas_in_a_file_name_are_doubled() {
        assert_eq!(drive(Path::new("a,b,,c")), "format=raw,if=ide,snapshot=on,file=a,,b,,,,c");
    }
}
