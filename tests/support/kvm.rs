//! Whether tests that need a VM can run here.

use std::io::Write;

/// Makes a test fail, instead of being skipped, on a machine without KVM.
const REQUIRE: &str = "MOTE_REQUIRE_KVM";

/// Whether KVM can be used. If not, says why on standard error, so that the test can return: it is skipped.
///
/// # Panics
///
/// If KVM cannot be used and the environment variable `MOTE_REQUIRE_KVM` is set.
pub(crate) fn usable() -> bool {
    let Err(error) = mote_vmm::open_kvm() else { return true };
    assert!(std::env::var_os(REQUIRE).is_none(), "{REQUIRE} is set, but {error}");
    // Not `eprintln`, which the test harness shows only for tests that fail.
    let thread = std::thread::current();
    let _written = writeln!(std::io::stderr(), "skipped {}: {error}", thread.name().unwrap_or("a test"));
    false
}
