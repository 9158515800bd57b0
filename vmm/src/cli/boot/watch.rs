//! What happens to a machine while it runs: its output passed on, its records read, its end brought about.

use std::{
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    process::ExitStatus,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use mote_abi::record::{INPUT_END_MAGIC, InputEnd, Phases};
use mote_vmm::{EndRecord, Record, RecordReader};
use zerocopy::IntoBytes;

use super::{
    super::{failure::Failure, guest::wait_for_signal},
    process::Running,
};

/// How long a machine may take to switch itself off when its run has ended.
pub(crate) const SWITCH_OFF: Duration = Duration::from_secs(5);
/// How long the rest of what a machine left may take to come, when its process is gone: it is all there, unless somebody else holds the
/// other end.
const LEFTOVERS: Duration = Duration::from_secs(2);
/// Kept of what QEMU says.
const MAX_COMPLAINT_BYTES: usize = 16 << 10;

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
    /// Of [`super::super::guest::signals`].
    pub(crate) signals: OwnedFd,
    /// How long a machine may take to switch itself off when it has told its end.
    pub(crate) switch_off: Duration,
}

enum Event {
    Record(Record),
    /// All that the console printed has been passed on.
    ConsoleClosed,
    /// QEMU ended, or is about to.
    RecordsClosed,
    /// QEMU says something.
    Complaint(Vec<u8>),
    ComplaintsClosed,
    OutputLost(io::Error),
    Signal,
}

impl<I: Read + Send + 'static, O: Write + Send + 'static> Watch<I, O> {
    /// Waits for the end, and brings it about where it has to be.
    pub(crate) fn until_end(self, machine: Running) -> Result<Observed, Failure> {
        let Running { mut child, console_input, mut console_output, complaints, records } = machine;
        let deadline = self.deadline.and_then(|time| Instant::now().checked_add(time));
        let (sender, events) = channel();

        let signals = self.signals.try_clone().context("cannot duplicate a pipe")?;
        in_thread(&sender, move |sender| {
            wait_for_signal(signals);
            let _nobody_waits = sender.send(Event::Signal);
        })?;
        let reader = records.try_clone().context("cannot duplicate a socket")?;
        in_thread(&sender, move |sender| read_records(reader, sender))?;
        let passing = Passing::default();
        let (mut output, passes) = (self.output, passing.clone());
        in_thread(&sender, move |sender| {
            let event = pass_on(&mut console_output, &mut output, &passes);
            let _nobody_waits = sender.send(event);
        })?;
        in_thread(&sender, move |sender| read_complaints(complaints, sender))?;

        // A QEMU whose input is a pipe without a writer drops output while it waits for a slow reader.
        let _open_to_the_end = console_input.as_fd().try_clone_to_owned().context("cannot duplicate a pipe")?;
        let mut input = Some((self.input, console_input, records));
        let mut state = State { switch_off: self.switch_off, ..State::default() };
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
        let status = child.end_within(closed.unwrap_or_default(), &self.signals).context("cannot wait for QEMU")?;
        state.drain(&events, &passing);
        let complaints = String::from_utf8_lossy(&state.complaints).trim_end().to_owned();
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
    switch_off: Duration,
    console_closed: bool,
    records_closed: bool,
    complaints: Vec<u8>,
    complaints_closed: bool,
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
            // It runs again.
            Event::Record(Record::Started(_)) if self.end.is_some() => self.patience = Some(Instant::now()),
            Event::Record(Record::Started(phases)) => self.phases = Some(phases),
            Event::Record(Record::Ended(end)) => self.told(End::Told(end)),
            Event::Record(Record::Failed(text)) => self.told(End::Failed(text)),
            Event::RecordsClosed => self.records_closed = true,
            Event::ConsoleClosed => self.console_closed = true,
            Event::Complaint(bytes) => self.complaints.extend(bytes),
            Event::ComplaintsClosed => self.complaints_closed = true,
            // Output that is lost matters whatever else happened.
            Event::OutputLost(error) => {
                self.end = Some(End::OutputLost(error));
                self.console_closed = true;
            }
            // Nothing is lost any more.
            Event::Signal if self.console_closed && self.end.is_some() => self.patience = Some(Instant::now()),
            // Who waits for a reader of the output, or for what records say, can be interrupted, too.
            Event::Signal => self.end = Some(End::Interrupted),
        }
    }

    /// The first end that is told is the end.
    fn told(&mut self, end: End) {
        self.end.get_or_insert(end);
        self.patience.get_or_insert(Instant::now() + self.switch_off);
    }

    /// The rest of what the machine left: QEMU is gone, so all of it comes, unless nobody takes the output.
    fn drain(&mut self, events: &Receiver<Event>, passing: &Passing) {
        let (mut until, mut passed) = (Instant::now() + LEFTOVERS, passing.count());
        while !self.console_closed || !self.records_closed || !self.complaints_closed {
            if let Ok(event) = events.recv_timeout(until.saturating_duration_since(Instant::now())) {
                self.take(event);
            }
            // A program that ended waits for the readers of its output, as any process does; one that was stopped does not.
            let is_stopped = matches!(self.end, Some(End::DeadlineExceeded | End::Interrupted));
            let goes_on = !is_stopped && (passing.is_at_a_reader() || passing.count() != passed);
            match Instant::now() < until {
                true => {}
                false if goes_on => (until, passed) = (Instant::now() + LEFTOVERS, passing.count()),
                false => return,
            }
        }
    }
}

/// How far the output is, as seen from another thread: odd while a reader is waited for.
#[derive(Clone, Default)]
struct Passing(Arc<AtomicU64>);

impl Passing {
    fn step(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn is_at_a_reader(&self) -> bool {
        self.count() % 2 == 1
    }
}

fn in_thread(sender: &Sender<Event>, run: impl FnOnce(Sender<Event>) + Send + 'static) -> Result<(), Failure> {
    let sender = sender.clone();
    // It ends with the process at the latest: some of these wait for what may never come.
    thread::Builder::new().spawn(move || run(sender)).context("cannot start a thread")?;
    Ok(())
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
fn pass_on(console: &mut impl Read, output: &mut impl Write, passing: &Passing) -> Event {
    let mut buffer = [0; 4096];
    loop {
        let bytes = match console.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => return Event::ConsoleClosed,
            Ok(bytes) => buffer.get(..bytes).unwrap_or_default(),
        };
        passing.step();
        if let Err(error) = output.write_all(bytes).and_then(|()| output.flush()) {
            return Event::OutputLost(error);
        }
        passing.step();
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
fn read_complaints(mut stream: impl Read, sender: Sender<Event>) {
    let mut room = MAX_COMPLAINT_BYTES;
    let mut buffer = [0; 4096];
    loop {
        let bytes = match stream.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(0) | Err(_) => break,
            Ok(bytes) => bytes.min(room),
        };
        room -= bytes;
        if bytes > 0 {
            let _nobody_waits = sender.send(Event::Complaint(buffer.get(..bytes).unwrap_or_default().to_vec()));
        }
    }
    let _nobody_waits = sender.send(Event::ComplaintsClosed);
}
