//! Gives each import of the module its function, and names all that are missing at once.

use alloc::{format, string::String, vec::Vec};

use wasmi::{ExternType, ImportType, Linker, Module, Store};

use crate::{
    report::Ending,
    wasi::{self, Wasi},
};

/// How many missing imports a message names.
const MOST_NAMED: usize = 20;

/// A linker that has what `module` imports and nothing else.
pub(crate) fn imports(module: &Module, store: &mut Store<Wasi>) -> Result<Linker<Wasi>, Ending> {
    let mut linker = Linker::new(module.engine());
    let mut missing = Vec::new();
    for import in module.imports() {
        let function = if import.module() == wasi::MODULE { wasi::function(import.name(), store) } else { None };
        match (function, import.ty()) {
            (Some(function), ExternType::Func(wanted)) if function.ty(&*store) == *wanted => {
                // The same import may be there twice; it is the same function then.
                let _defined_already = linker.define(import.module(), import.name(), function);
            }
            (Some(_), _) => missing.push(format!("{} with another type", name(&import))),
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
    };
    format!("{kind} {}::{}", import.module(), import.name())
}

fn describe(missing: &[String]) -> String {
    let named = missing.iter().take(MOST_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = missing.len().saturating_sub(MOST_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("it imports what is not there: {named}{more}")
}
