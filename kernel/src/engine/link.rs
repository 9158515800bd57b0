//! Gives each import of a module what it names, and tells all that are missing at once.

use alloc::{format, string::String, vec::Vec};

use super::{
    backend::{self, Extern, ExternType, ImportType, Linker, Module, Store},
    host::HostFunctions,
    instances::Instances,
};
use crate::{
    report::Ending,
    wasi::{self, Wasi},
};

/// How many missing imports a message names.
const MOST_NAMED: usize = 20;

/// A linker that has what `module` imports and nothing else: functions of the host first, then exports of registered
/// instances, then WASI.
pub(crate) fn imports(
    module: &Module,
    store: &mut Store<Wasi>,
    host: &HostFunctions,
    instances: &Instances,
) -> Result<Linker<Wasi>, Ending> {
    let mut linker = Linker::new(module.engine());
    let mut missing = Vec::new();
    for import in module.imports() {
        let found = host.get(import.module(), import.name()).map(Extern::Func);
        let found = found.or_else(|| instances.registered(import.module(), import.name(), store));
        let found = found.or_else(|| match import.module() {
            wasi::MODULE => wasi::function(import.name(), store).map(Extern::Func),
            _ => None,
        });
        #[allow(clippy::needless_borrow, reason = "one of the engines gives types away, the other lends them")]
        match (found, import.ty()) {
            (Some(Extern::Func(function)), ExternType::Func(wanted)) if !backend::matches(&function.ty(&*store), &wanted) => {
                missing.push(format!("{} with another type", name(&import)));
            }
            // Anything else that does not fit is told by the engine.
            (Some(found), _) => backend::define(&mut linker, store, &import, found),
            (None, _) => missing.push(name(&import)),
        }
    }
    if missing.is_empty() { Ok(linker) } else { Err(Ending::cannot_run(describe(&missing))) }
}

fn name(import: &ImportType<'_>) -> String {
    let kind = match import.ty() {
        ExternType::Func(_) => "function",
        ExternType::Global(_) => "global",
        ExternType::Memory(_) => "memory",
        ExternType::Table(_) => "table",
        #[cfg(feature = "compiled")]
        ExternType::Tag(_) => "tag",
    };
    format!("{kind} {}::{}", import.module(), import.name())
}

fn describe(missing: &[String]) -> String {
    let named = missing.iter().take(MOST_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = missing.len().saturating_sub(MOST_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("it imports what is not there: {named}{more}")
}
