//! Failures of the kernel itself: panics and an exhausted heap. Exceptions are the host's to report.

use mote_abi::hypercall::{ExitArgs, exit_kind};

use crate::{console::Line, hypercall, memory, monitor};

/// Ends the run as a kernel panic.
pub(crate) fn abort(message: &str) -> ! {
    end(exit_kind::PANIC, message.as_bytes())
}

/// As [`abort`], for a message with details.
#[cfg(feature = "compiled")]
pub(crate) fn abort_fmt(message: core::fmt::Arguments<'_>) -> ! {
    end(exit_kind::PANIC, Line::<1024>::new(message).as_bytes())
}

fn end(kind: u32, message: &[u8]) -> ! {
    hypercall::exit(ExitArgs { kind, ..ExitArgs::default() }, [message, &[], &[], &[]])
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    if monitor::is_running() {
        monitor::panic(format_args!("{info}"));
    }
    // The standard handler of a failed allocation panics; the allocator remembers what it refused.
    let text = Line::<1024>::new(format_args!("{}", info.message()));
    if text.as_bytes().starts_with(b"memory allocation of ") && memory::was_exhausted() {
        end(exit_kind::OUT_OF_MEMORY, text.as_bytes())
    }
    let text = Line::<1024>::new(format_args!("{info}"));
    end(exit_kind::PANIC, text.as_bytes())
}
