//! What scripts need of an engine, and the host module of the suite.

use mote_vmm::Value;

use super::value::Bits;

/// Something that runs modules.
pub(crate) trait Engine {
    type Instance: Copy;

    /// Instantiates a module in binary format, which can import from modules that were registered.
    fn instantiate(&mut self, bytes: &[u8]) -> Result<Self::Instance, Failure>;

    /// Offers the exports of an instance under a name.
    fn register(&mut self, name: &str, instance: Self::Instance) -> Result<(), Failure>;

    /// Calls an exported function.
    fn invoke(&mut self, instance: Self::Instance, name: &str, arguments: &[Value]) -> Result<Vec<Bits>, Failure>;

    /// Reads an exported global.
    fn global(&mut self, instance: Self::Instance, name: &str) -> Result<Bits, Failure>;

    /// What the functions of `spectest` were called with.
    fn printed(&mut self) -> Vec<String>;
}

/// Why an engine did not do something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A trap, with the name of [`mote_vmm::TrapKind`] or the engine's own.
    Trap(String),
    /// The module is not valid.
    Invalid(String),
    /// The module is valid, but cannot be instantiated.
    Unlinkable(String),
    /// Something that scripts never mean.
    Other(String),
}

impl Failure {
    /// Whether two engines failed in the same way; their words for it may differ.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Trap(one), Self::Trap(two)) => one == two,
            (Self::Invalid(_), Self::Invalid(_)) | (Self::Unlinkable(_), Self::Unlinkable(_)) => true,
            (Self::Other(_), Self::Other(_)) => true,
            _ => false,
        }
    }
}

/// The module whose functions the host has.
pub(crate) const HOST_MODULE: &str = "spectest_host";

/// The suite's `spectest` module ("Host module" in the reference interpreter's README). It calls the host to print.
pub(crate) const SPECTEST: &str = r#"(module
    (import "spectest_host" "print" (func $print))
    (import "spectest_host" "print_i32" (func $print_i32 (param i32)))
    (import "spectest_host" "print_i64" (func $print_i64 (param i64)))
    (import "spectest_host" "print_f32" (func $print_f32 (param f32)))
    (import "spectest_host" "print_f64" (func $print_f64 (param f64)))
    (import "spectest_host" "print_i32_f32" (func $print_i32_f32 (param i32 f32)))
    (import "spectest_host" "print_f64_f64" (func $print_f64_f64 (param f64 f64)))
    (func (export "print") call $print)
    (func (export "print_i32") (param i32) local.get 0 call $print_i32)
    (func (export "print_i64") (param i64) local.get 0 call $print_i64)
    (func (export "print_f32") (param f32) local.get 0 call $print_f32)
    (func (export "print_f64") (param f64) local.get 0 call $print_f64)
    (func (export "print_i32_f32") (param i32 f32) local.get 0 local.get 1 call $print_i32_f32)
    (func (export "print_f64_f64") (param f64 f64) local.get 0 local.get 1 call $print_f64_f64)
    (global (export "global_i32") i32 (i32.const 666))
    (global (export "global_i64") i64 (i64.const 666))
    (global (export "global_f32") f32 (f32.const 666.6))
    (global (export "global_f64") f64 (f64.const 666.6))
    (table (export "table") 10 20 funcref)
    (table (export "table64") i64 10 20 funcref)
    (memory (export "memory") 1 2))"#;
