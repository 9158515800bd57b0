//! The modules that were instantiated, and the names under which others see them.

use alloc::{collections::BTreeMap, string::String, vec::Vec};

use mote_abi::{
    command::{ExportHeader, export_kind},
    hypercall::LinearMemory,
    mailbox::DATA_BYTES,
};
use zerocopy::IntoBytes;

use super::{
    backend::{self, Extern, ExternType, Instance, Memory, Module, Store},
    values,
};
use crate::{hypercall, wasi::Wasi};

/// All instances of this VM.
#[derive(Default)]
pub(crate) struct Instances {
    all: Vec<Loaded>,
    /// Places in `all` by name.
    names: BTreeMap<String, usize>,
}

/// An instance, with its exports in the order in which the engine lists them.
pub(super) struct Loaded {
    pub(super) instance: Instance,
    module: Module,
    exports: Vec<Extern>,
}

impl Instances {
    /// Adds an instance and returns its number.
    pub(super) fn add(&mut self, module: &Module, instance: Instance, store: &mut Store<Wasi>) -> u32 {
        let exports = module.exports().filter_map(|export| instance.get_export(&mut *store, export.name())).collect();
        self.all.push(Loaded { instance, module: module.clone(), exports });
        self.note_memory(store);
        self.all.len() as u32 - 1
    }

    /// Where there is one instance only, WASI need not look for its memory.
    pub(super) fn note_memory(&self, store: &mut Store<Wasi>) {
        let memory = match self.all.as_slice() {
            [only] => only.instance.get_memory(&mut *store, "memory"),
            _ => None,
        };
        store.data_mut().memory = memory;
    }

    pub(super) fn get(&self, number: u32) -> Option<&Loaded> {
        self.all.get(number as usize)
    }

    pub(super) fn export(&self, instance: u32, export: u32) -> Option<Extern> {
        self.get(instance)?.exports.get(export as usize).cloned()
    }

    /// Offers an instance under a name; one that had it before is offered no more. `false` if there is no such instance.
    pub(super) fn register(&mut self, instance: u32, name: String) -> bool {
        let index = instance as usize;
        let exists = index < self.all.len();
        if exists {
            self.names.insert(name, index);
        }
        exists
    }

    /// What is registered as `module` and exports `name`.
    pub(super) fn registered(&self, module: &str, name: &str, store: &mut Store<Wasi>) -> Option<Extern> {
        let index = *self.names.get(module)?;
        self.all.get(index)?.instance.get_export(store, name)
    }
}

impl Loaded {
    /// The memory that it exports as `memory`.
    pub(super) fn memory(&self, store: &mut Store<Wasi>) -> LinearMemory {
        self.instance.get_memory(&mut *store, "memory").map_or_else(LinearMemory::default, |memory| linear(memory, store))
    }

    /// Lists exports from number `from` on into the mailbox, as many as fit: how many bytes that takes, and how many exports
    /// there are in all. `None` if the first one alone does not fit.
    pub(super) fn list(&self, from: u32) -> Option<(usize, usize)> {
        let mut at = 0;
        for export in self.module.exports().skip(from as usize) {
            #[allow(clippy::needless_borrow, reason = "one of the engines gives it away, the other lends it")]
            let (header, ty) = described(&export.ty());
            let name = export.name().as_bytes();
            let header = ExportHeader { name_bytes: name.len() as u32, type_bytes: ty.len() as u32, ..header };
            let parts = [header.as_bytes(), name, &ty];
            let bytes: usize = parts.iter().map(|part| part.len()).sum();
            if at + bytes > DATA_BYTES {
                if at == 0 {
                    return None;
                }
                break;
            }
            for part in parts {
                hypercall::write_data(at, part);
                at += part.len();
            }
        }
        Some((at, self.exports.len()))
    }
}

/// Where a memory lies.
pub(super) fn linear(memory: Memory, store: &Store<Wasi>) -> LinearMemory {
    LinearMemory { address: memory.data_ptr(store) as u64, bytes: memory.data_size(store) as u64 }
}

/// The type of an export: what is fixed of the header, and the letters.
fn described(ty: &ExternType) -> (ExportHeader, Vec<u8>) {
    let header = ExportHeader::default();
    match ty {
        ExternType::Func(ty) => (ExportHeader { kind: export_kind::FUNCTION, ..header }, values::signature(ty)),
        ExternType::Global(ty) => {
            let flag = u32::from(backend::is_mutable(ty));
            (ExportHeader { kind: export_kind::GLOBAL, flag, ..header }, alloc::vec![values::letter(&backend::content(ty))])
        }
        ExternType::Memory(ty) => {
            let (minimum, maximum) = (ty.minimum(), ty.maximum().unwrap_or(u64::MAX));
            let flag = u32::from(ty.is_64());
            (ExportHeader { kind: export_kind::MEMORY, flag, minimum, maximum, ..header }, Vec::new())
        }
        ExternType::Table(ty) => {
            let (minimum, maximum) = (ty.minimum(), ty.maximum().unwrap_or(u64::MAX));
            let letter = values::letter(&backend::element(ty));
            (ExportHeader { kind: export_kind::TABLE, minimum, maximum, ..header }, alloc::vec![letter])
        }
        #[cfg(feature = "compiled")]
        ExternType::Tag(_) => (ExportHeader { kind: export_kind::TAG, ..header }, Vec::new()),
    }
}
