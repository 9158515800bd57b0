//! What happens to a machine while it runs: its output passed on, its records read, its end brought about.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::AsFd,
    process::ExitStatus,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use mote_abi::record::{INPUT_END_MAGIC, InputEnd, Phases};
use mote_vmm::{EndRecord, Record, RecordReader};
use zerocopy::IntoBytes;

use super::{
    super::{failure::Failure, guest::signals},
    process::Running,
};

/// How long a machine may take to switch itself off when its run has ended.
const SWITCH_OFF: Duration = Duration::from_secs(5);
/// Kept of what QEMU says.
const MAX_COMPLAINT_BYTES: u64 = 16 << 10;

/// How a machine ended.
pub(crate) enum End {
    /// The guest told how its run ended.
    Told(Box<EndRecord>),
    /// The guest told why there was no run.
    Failed(String),
    /// The time was over.
    DeadlineExceeded,
    /// A signal asked this process to end.
    Interrupted,
    /// Output could not be written.
    OutputLost(io::Error),
    /// QEMU ended, and the guest had told nothing.
    Silent(ExitStatus),
}

/// What is known of a machine that has ended.
pub(crate) struct Observed {
    pub(crate) end: End,
    /// If the kernel came so far.
    pub(crate) phases: Option<Phases>,
    /// What QEMU said, which is mostly nothing.
    pub(crate) complaints: String,
}

/// What a machine is watched with.
pub(crate) struct Watch<I, O> {
    /// Goes to the console, once the machine takes it.
    pub(crate) input: I,
    /// Gets what the console prints.
    pub(crate) output: O,
    pub(crate) deadline: Option<Duration>,
}

enum Event {
    Record(Record),
    /// All that the console printed has been passed on.
    ConsoleClosed,
    /// QEMU ended, or is about to.
    RecordsClosed,
    OutputLost(io::Error),
    Signal,
}

impl<I: Read + Send + 'static, O: Write + Send + 'static> Watch<I, O> {
    /// Waits for the end, and brings it about where it has to be.
    pub(crate) fn until_end(self, machine: Running) -> Result<Observed, Failure> {
        let Running { mut child, console_input, mut console_output, complaints, records } = machine;
        let deadline = self.deadline.and_then(|time| Instant::now().checked_add(time));
        let (sender, events) = channel();

        let signals = File::from(signals()?);
        in_thread(&sender, move |sender| wait_for_signal(signals, sender))?;
        let reader = records.try_clone().context("cannot duplicate a socket")?;
        in_thread(&sender, move |sender| read_records(reader, sender))?;
        let mut output = self.output;
        in_thread(&sender, move |sender| {
            let event = pass_on(&mut console_output, &mut output);
            let _nobody_waits = sender.send(event);
        })?;
        let complaints = thread::Builder::new().spawn(move || read_complaints(complaints)).context("cannot start a thread")?;

        // A QEMU whose input is a pipe without a writer drops output while it waits for a slow reader.
        let _open_to_the_end = console_input.as_fd().try_clone_to_owned().context("cannot duplicate a pipe")?;
        let mut input = Some((self.input, console_input, records));
        let mut state = State::default();
        while let Some(event) = state.next(&events, deadline) {
            if matches!(event, Event::Record(Record::Started(_)))
                && let Some((from, to, records)) = input.take()
            {
                // What is sent before the kernel has set up its line is lost, or firmware takes it.
                in_thread(&sender, move |_| feed(from, to, records))?;
            }
            state.take(event);
        }
        let closed = state.records_closed.then_some(SWITCH_OFF);
        let status = child.end_within(closed.unwrap_or_default()).context("cannot wait for QEMU")?;
        state.drain(&events);
        let complaints = complaints.join().unwrap_or_default();
        Ok(Observed { end: state.end.unwrap_or(End::Silent(status)), phases: state.phases, complaints })
    }
}

/// What is known so far.
#[derive(Default)]
struct State {
    end: Option<End>,
    phases: Option<Phases>,
    /// When a machine that has told its end is not waited for any more.
    patience: Option<Instant>,
    console_closed: bool,
    records_closed: bool,
}

impl State {
    /// The next thing that happens; `None` if there is nothing to wait for.
    fn next(&mut self, events: &Receiver<Event>, deadline: Option<Instant>) -> Option<Event> {
        let told = matches!(self.end, None | Some(End::Told(_) | End::Failed(_)));
        if !told || self.records_closed {
            return None;
        }
        match self.patience.or(deadline) {
            None => events.recv().ok(),
            Some(until) => match events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(event) => Some(event),
                Err(RecvTimeoutError::Timeout) => {
                    self.end.get_or_insert(End::DeadlineExceeded);
                    // One that has told its end is only slow to switch off.
                    None
                }
                Err(RecvTimeoutError::Disconnected) => None,
            },
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Record(Record::Started(phases)) => self.phases = Some(phases),
            Event::Record(Record::Ended(end)) => self.told(End::Told(end)),
            Event::Record(Record::Failed(text)) => self.told(End::Failed(text)),
            Event::RecordsClosed => self.records_closed = true,
            Event::ConsoleClosed => self.console_closed = true,
            // Output that is lost matters whatever else happened.
            Event::OutputLost(error) => {
                self.end = Some(End::OutputLost(error));
                self.console_closed = true;
            }
            // Who waits for a reader of the output can be interrupted, too.
            Event::Signal if !self.console_closed => self.end = Some(End::Interrupted),
            Event::Signal => {}
        }
    }

    /// The first end that is told is the end.
    fn told(&mut self, end: End) {
        self.end.get_or_insert(end);
        self.patience.get_or_insert(Instant::now() + SWITCH_OFF);
    }

    /// The rest of what the machine left: QEMU is gone, so all of it comes, unless nobody takes the output.
    fn drain(&mut self, events: &Receiver<Event>) {
        let mut until = None;
        while !self.console_closed || !self.records_closed {
            // A program that ended waits for the readers of its output, as any process does; one that was stopped does not.
            let stopped = matches!(self.end, Some(End::DeadlineExceeded | End::Interrupted));
            let event = if stopped {
                let until = *until.get_or_insert_with(|| Instant::now() + Duration::from_secs(2));
                events.recv_timeout(until.saturating_duration_since(Instant::now())).ok()
            } else {
                events.recv().ok()
            };
            let Some(event) = event else { return };
            self.take(event);
        }
    }
}

fn in_thread(sender: &Sender<Event>, run: impl FnOnce(Sender<Event>) + Send + 'static) -> Result<(), Failure> {
    let sender = sender.clone();
    // It ends with the process at the latest: some of these wait for what may never come.
    thread::Builder::new().spawn(move || run(sender)).context("cannot start a thread")?;
    Ok(())
}

fn wait_for_signal(mut pipe: File, sender: Sender<Event>) {
    loop {
        match pipe.read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(1..) => drop(sender.send(Event::Signal)),
            Ok(0) | Err(_) => return,
        }
    }
}

fn read_records(mut channel: impl Read, sender: Sender<Event>) {
    let mut records = RecordReader::new();
    let mut buffer = [0; 4096];
    loop {
        match channel.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(bytes @ 1..) => records.push(buffer.get(..bytes).unwrap_or_default()),
            Ok(0) | Err(_) => records.end(),
        }
        let ended = records.is_ended();
        for record in std::iter::from_fn(|| records.next_record()) {
            let _nobody_waits = sender.send(Event::Record(record));
        }
        if ended {
            let _nobody_waits = sender.send(Event::RecordsClosed);
            return;
        }
    }
}

/// All of the console, as it comes.
fn pass_on(console: &mut impl Read, output: &mut impl Write) -> Event {
    let mut buffer = [0; 4096];
    loop {
        let bytes = match console.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => return Event::ConsoleClosed,
            Ok(bytes) => buffer.get(..bytes).unwrap_or_default(),
        };
        if let Err(error) = output.write_all(bytes).and_then(|()| output.flush()) {
            return Event::OutputLost(error);
        }
    }
}

/// All of the input, and how much it was: a serial line has no end of its own.
fn feed(mut from: impl Read, mut to: impl Write, mut records: impl Write) {
    let mut buffer = [0; 4096];
    let mut total_bytes = 0;
    loop {
        let bytes = match from.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => break,
            Ok(bytes) => buffer.get(..bytes).unwrap_or_default(),
        };
        // A machine that has ended reads no more.
        if to.write_all(bytes).and_then(|()| to.flush()).is_err() {
            return;
        }
        total_bytes += bytes.len() as u64;
    }
    let _ended_already = records.write_all(InputEnd { magic: INPUT_END_MAGIC, total_bytes }.as_bytes());
}

/// What QEMU has to say, with a bound.
fn read_complaints(stream: impl Read) -> String {
    let mut bytes = Vec::new();
    let mut stream = stream.take(MAX_COMPLAINT_BYTES);
    let _what_was_read = stream.read_to_end(&mut bytes);
    let _rest = io::copy(&mut stream.into_inner(), &mut io::sink());
    String::from_utf8_lossy(&bytes).trim_end().to_owned()
}
