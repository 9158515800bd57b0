//! The last call from the module to WASI, kept for the report of a trap.

use alloc::{format, string::String, vec::Vec};

/// Most arguments that a function of preview 1 has.
const MOST_ARGUMENTS: usize = 9;

/// Name and arguments.
#[derive(Debug, Default)]
pub(crate) struct LastCall {
    name: &'static str,
    arguments: [i64; MOST_ARGUMENTS],
    count: usize,
}

impl LastCall {
    pub(super) fn record(&mut self, name: &'static str, arguments: &[i64]) {
        self.name = name;
        self.count = arguments.len().min(MOST_ARGUMENTS);
        for (to, from) in self.arguments.iter_mut().zip(arguments) {
            *to = *from;
        }
    }

    /// As in `fd_write(1, 1048, 1, 1056)`; empty if there was no call.
    pub(crate) fn describe(&self) -> String {
        if self.name.is_empty() {
            return String::new();
        }
        let arguments: Vec<_> = self.arguments.iter().take(self.count).map(|argument| format!("{argument}")).collect();
        format!("{}({})", self.name, arguments.join(", "))
    }
}
