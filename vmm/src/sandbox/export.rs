//! What an instance exports: as the guest lists it, checked.

use std::collections::HashMap;

use mote_abi::{
    command::{ExportHeader, export_kind},
    value::{ValueType, signature},
};
use zerocopy::FromBytes;

use crate::ending::GuestFault;

use super::value::type_names;

/// A type of functions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FuncType {
    /// Types of the parameters.
    pub params: Vec<ValueType>,
    /// Types of the results.
    pub results: Vec<ValueType>,
}

impl std::fmt::Display for FuncType {
    /// As `(i32, i32) -> (i64)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} -> {}", type_names(&self.params), type_names(&self.results))
    }
}

/// What an export is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportType {
    /// A function.
    Func(FuncType),
    /// A global.
    Global {
        /// Type of its value.
        ty: ValueType,
        /// Whether it can be set.
        mutable: bool,
    },
    /// A linear memory, with sizes in pages as it is declared.
    Memory {
        /// Least size.
        minimum: u64,
        /// Largest size, if there is a bound.
        maximum: Option<u64>,
        /// Whether its addresses have 64 bits.
        memory64: bool,
    },
    /// A table, with sizes in elements as it is declared.
    Table {
        /// Type of its elements.
        ty: ValueType,
        /// Least size.
        minimum: u64,
        /// Largest size, if there is a bound.
        maximum: Option<u64>,
    },
    /// A tag of exceptions.
    Tag,
}

/// An export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// Its name.
    pub name: String,
    /// What it is.
    pub ty: ExportType,
}

/// All exports of an instance, in the order in which the guest lists them.
#[derive(Debug, Default)]
pub(crate) struct Exports {
    all: Vec<Export>,
    by_name: HashMap<String, usize>,
}

impl Exports {
    /// From what was taken out of a snapshot or of a guest.
    pub(crate) fn new(all: Vec<Export>) -> Self {
        let by_name = all.iter().enumerate().map(|(index, export)| (export.name.clone(), index)).collect();
        Self { all, by_name }
    }

    pub(crate) fn as_slice(&self) -> &[Export] {
        &self.all
    }

    /// The export of this name with its number.
    pub(crate) fn find(&self, name: &str) -> Option<(u32, &Export)> {
        let index = *self.by_name.get(name)?;
        Some((u32::try_from(index).ok()?, self.all.get(index)?))
    }

    /// The name of the export of this number.
    pub(crate) fn name(&self, index: u32) -> Option<&str> {
        self.all.get(usize::try_from(index).ok()?).map(|export| export.name.as_str())
    }

    /// The function of this number.
    pub(crate) fn function(&self, index: u32) -> Option<&FuncType> {
        match &self.all.get(usize::try_from(index).ok()?)?.ty {
            ExportType::Func(ty) => Some(ty),
            _ => None,
        }
    }
}

/// Reads a list of exports as the guest gives it.
pub(crate) fn decode(mut bytes: &[u8]) -> Result<Vec<Export>, GuestFault> {
    let bad = || GuestFault::BadRequest("a list of exports that is none".into());
    let mut exports = Vec::new();
    while !bytes.is_empty() {
        let (header, rest) = ExportHeader::read_from_prefix(bytes).map_err(|_| bad())?;
        let (name, rest) = split(rest, header.name_bytes).ok_or_else(bad)?;
        let (letters, rest) = split(rest, header.type_bytes).ok_or_else(bad)?;
        let name = String::from_utf8(name.to_vec()).map_err(|_| bad())?;
        exports.push(Export { name, ty: export_type(&header, letters).ok_or_else(bad)? });
        bytes = rest;
    }
    Ok(exports)
}

fn split(bytes: &[u8], at: u32) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(usize::try_from(at).ok()?)
}

fn export_type(header: &ExportHeader, letters: &[u8]) -> Option<ExportType> {
    let letter = || match letters {
        [letter] => ValueType::from_letter(*letter),
        _ => None,
    };
    let (minimum, maximum) = (header.minimum, (header.maximum != u64::MAX).then_some(header.maximum));
    Some(match header.kind {
        export_kind::FUNCTION => {
            let (params, results) = signature::decode(letters)?;
            ExportType::Func(FuncType { params: params.collect(), results: results.collect() })
        }
        export_kind::GLOBAL => ExportType::Global { ty: letter()?, mutable: header.flag != 0 },
        export_kind::MEMORY => ExportType::Memory { minimum, maximum, memory64: header.flag != 0 },
        export_kind::TABLE => ExportType::Table { ty: letter()?, minimum, maximum },
        export_kind::TAG => ExportType::Tag,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    fn encode(header: ExportHeader, name: &str, letters: &str) -> Vec<u8> {
        let length = |text: &str| u32::try_from(text.len()).unwrap();
        let header = ExportHeader { name_bytes: length(name), type_bytes: length(letters), ..header };
        [header.as_bytes(), name.as_bytes(), letters.as_bytes()].concat()
    }

    proptest! {
        #[test]
        fn any_bytes_are_exports_or_a_fault(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0u32..5, name_bytes in 0u32..40, type_bytes in 0u32..40) {
            let _ = decode(&bytes);
            let header = ExportHeader { name_bytes, type_bytes, kind, ..ExportHeader::default() };
            let _ = decode(&[header.as_bytes(), &bytes].concat());
        }
    }

    #[test]
    fn each_kind_is_read() {
        let kind = |kind| ExportHeader { kind, maximum: u64::MAX, ..ExportHeader::default() };
        let bytes = [
            encode(kind(export_kind::FUNCTION), "f", "iI:F"),
            encode(ExportHeader { flag: 1, ..kind(export_kind::GLOBAL) }, "g", "v"),
            encode(ExportHeader { minimum: 1, maximum: 2, ..kind(export_kind::MEMORY) }, "memory", ""),
            encode(kind(export_kind::TABLE), "t", "c"),
        ]
        .concat();
        let exports = Exports::new(decode(&bytes).unwrap());
        let (index, function) = exports.find("f").unwrap();
        assert_eq!((index, &function.ty), (0, &ExportType::Func(exports.function(0).unwrap().clone())));
        assert_eq!(exports.function(0).unwrap().to_string(), "(i32, i64) -> (f64)");
        assert_eq!(exports.function(1), None);
        assert_eq!(exports.find("g").unwrap().1.ty, ExportType::Global { ty: ValueType::V128, mutable: true });
        let memory = ExportType::Memory { minimum: 1, maximum: Some(2), memory64: false };
        assert_eq!(exports.find("memory").unwrap().1.ty, memory);
        assert_eq!(exports.find("t").unwrap().1.ty, ExportType::Table { ty: ValueType::FuncRef, minimum: 0, maximum: None });
        assert!(exports.find("x").is_none());
        assert!(decode(&encode(kind(export_kind::GLOBAL), "g", "")).is_err());
    }
}
