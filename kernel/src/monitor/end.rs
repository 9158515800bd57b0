//! How it ends: what is said, and what is done then.

use core::fmt::{self, Write as _};

use mote_abi::{
    hypercall::{ExitArgs, exit_kind, trap},
    layout::MAILBOX_DATA,
    record::kind,
};
use mote_kernel_logic::boot::{
    acpi::{Power, Tables},
    options::{Exit, MAX_DELAY_S},
};
use zerocopy::IntoBytes;

use super::{
    Monitor, machine,
    memory::{Low, View},
    power, ring,
};
use crate::console::Line;

/// Exit statuses, as `mote run` has them.
const FAILURE: u32 = 125;
const REJECTED: u32 = 126;
const TRAP: u32 = 134;

impl Monitor {
    /// The kernel says that the run is over; its texts are in the mailbox.
    pub(super) fn end(&mut self, arguments: &ExitArgs) -> ! {
        let lengths = [arguments.message_bytes, arguments.export_bytes, arguments.last_call_bytes, arguments.backtrace_bytes];
        let bytes = lengths.iter().try_fold(0u32, |sum, bytes| sum.checked_add(*bytes)).map(u64::from);
        let Some(bytes) = bytes.filter(|bytes| *bytes <= MAILBOX_DATA.bytes()) else {
            self.fail(format_args!("the guest kernel sent a bad request: texts longer than the mailbox"))
        };
        let texts = View::slice(MAILBOX_DATA.start, bytes as usize);
        self.record.send(kind::EXIT, &[arguments.as_bytes(), texts]);
        let [message, export] = [(0, lengths[0]), (lengths[0], lengths[1])].map(|(start, bytes)| {
            let text = texts.get(start as usize..).and_then(|rest| rest.get(..bytes as usize));
            text.and_then(|text| str::from_utf8(text).ok()).unwrap_or("")
        });
        let status = match arguments.kind {
            exit_kind::EXITED => arguments.code & 0xff,
            exit_kind::TRAPPED => TRAP,
            exit_kind::INVALID_MODULE | exit_kind::CANNOT_RUN => REJECTED,
            _ => FAILURE,
        };
        // Whoever takes records says it better.
        if !self.record.is_open() || self.console.is_terminal() {
            match arguments.kind {
                exit_kind::EXITED if status == 0 => {}
                exit_kind::EXITED => self.console.line(format_args!("the program ended with status {status}")),
                exit_kind::TRAPPED => {
                    let name = trap::name(arguments.code).unwrap_or(message);
                    match export {
                        "" => self.console.line(format_args!("wasm trap: {name}, while the module was instantiated")),
                        export => self.console.line(format_args!("wasm trap: {name}, in a call of `{export}`")),
                    }
                }
                exit_kind::INVALID_MODULE => self.console.line(format_args!("the module is not valid: {message}")),
                exit_kind::CANNOT_RUN => self.console.line(format_args!("the module cannot be run: {message}")),
                exit_kind::OUT_OF_MEMORY => self.console.line(format_args!("memory is exhausted: {message}")),
                _ => self.console.line(format_args!("the guest kernel panicked: {message}")),
            }
        }
        self.leave(status)
    }

    /// No memory is left for what the kernel touched.
    pub(super) fn exhausted(&mut self) -> ! {
        let message = b"no page is left for its memory";
        let arguments = ExitArgs { kind: exit_kind::OUT_OF_MEMORY, message_bytes: message.len() as u32, ..ExitArgs::default() };
        View::write(MAILBOX_DATA.start, message);
        self.end(&arguments)
    }

    /// Nothing can be run, or the kernel did what it must not.
    pub(super) fn fail(&mut self, message: fmt::Arguments<'_>) -> ! {
        let text = Line::<1024>::new(message);
        ring::drain_what_is_there(self);
        self.record.send(kind::FAILURE, &[text.as_bytes()]);
        if !self.record.is_open() || self.console.is_terminal() {
            self.console.line(message);
        }
        if self.options.exit == Exit::Restart {
            // What is wrong with the machine, or with the kernel, may be right after a reset, and nothing less.
            self.options.exit = Exit::Reboot;
        }
        self.leave(FAILURE)
    }

    /// Does what the command line says is done at the end.
    fn leave(&mut self, status: u32) -> ! {
        self.console.flush();
        self.failures = if status == 0 { 0 } else { self.failures.saturating_add(1) };
        let delay_s = self.options.delay_s;
        match self.options.exit {
            Exit::Debug => power::debug_exit(status),
            Exit::Restart => {
                let doublings = self.failures.saturating_sub(1).min(MAX_DELAY_S.ilog2() + 1);
                self.wait_s(if status == 0 { delay_s } else { (delay_s.max(1) << doublings).min(MAX_DELAY_S) });
                self.run()
            }
            Exit::Reboot => {
                self.wait_s(delay_s);
                power::reset(self.power().as_ref(), &self.timer)
            }
            Exit::PowerOff => {
                self.watchdog.stop();
                power::off(self.power().as_ref(), &self.timer);
                let _always_ok =
                    self.console.write_str("mote: this machine cannot be switched off; it is safe to do so by hand\n");
            }
            Exit::Halt => {}
        }
        self.watchdog.stop();
        power::halt()
    }

    /// How the machine is switched off and reset. Only now, as most runs never ask.
    fn power(&self) -> Option<Power> {
        machine::leave();
        Power::read(Low, &self.acpi.or_else(|| Tables::search(Low))?)
    }

    /// Lets seconds pass, in which the watchdog does not bite.
    fn wait_s(&self, seconds: u32) {
        for _ in 0..seconds {
            self.watchdog.feed();
            self.timer.sleep_s(1);
        }
    }
}
