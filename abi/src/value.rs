//! Values and types of WebAssembly as they cross between host and kernel.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A value; its type is known from the signature. Integers and floats are their bits in `low`, the rest zeros; a vector fills
/// both; a reference is [`NULL`], or the number of an `externref`, or any other number for what is no `externref`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RawValue {
    /// Lower half.
    pub low: u64,
    /// Upper half.
    pub high: u64,
}

/// A null reference in [`RawValue::low`].
pub const NULL: u64 = u64::MAX;
/// Most arguments or results of a function (WebAssembly JavaScript interface, "Implementation-defined limits").
pub const MAX_VALUES: usize = 1000;

/// Types of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// 32-bit integer.
    I32,
    /// 64-bit integer.
    I64,
    /// 32-bit float.
    F32,
    /// 64-bit float.
    F64,
    /// 128-bit vector.
    V128,
    /// Reference to a function.
    FuncRef,
    /// Reference to something of the host.
    ExternRef,
    /// Any other reference: to an object of the module, an exception, or a function of a certain type.
    OtherRef,
}

/// All types with their letters.
const LETTERS: [(ValueType, u8); 8] = [
    (ValueType::I32, b'i'),
    (ValueType::I64, b'I'),
    (ValueType::F32, b'f'),
    (ValueType::F64, b'F'),
    (ValueType::V128, b'v'),
    (ValueType::FuncRef, b'c'),
    (ValueType::ExternRef, b'e'),
    (ValueType::OtherRef, b'o'),
];

impl ValueType {
    /// The letter that stands for it in a signature.
    pub const fn letter(self) -> u8 {
        match self {
            Self::I32 => b'i',
            Self::I64 => b'I',
            Self::F32 => b'f',
            Self::F64 => b'F',
            Self::V128 => b'v',
            Self::FuncRef => b'c',
            Self::ExternRef => b'e',
            Self::OtherRef => b'o',
        }
    }

    /// The type that `letter` stands for.
    pub fn from_letter(letter: u8) -> Option<Self> {
        LETTERS.iter().find(|(_, its)| *its == letter).map(|(ty, _)| *ty)
    }

    /// Its name in the text format.
    pub const fn name(self) -> &'static str {
        match self {
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::V128 => "v128",
            Self::FuncRef => "funcref",
            Self::ExternRef => "externref",
            Self::OtherRef => "ref",
        }
    }
}

/// Signatures: the letters of the parameters, a colon, the letters of the results.
pub mod signature {
    use super::ValueType;

    /// What stands between parameters and results.
    pub const SEPARATOR: u8 = b':';

    /// The types of parameters and results; `None` if the text is no signature.
    pub fn decode(text: &[u8]) -> Option<(impl Iterator<Item = ValueType>, impl Iterator<Item = ValueType>)> {
        let at = text.iter().position(|letter| *letter == SEPARATOR)?;
        let (parameters, results) = (text.get(..at)?, text.get(at + 1..)?);
        let known = |letters: &[u8]| letters.iter().all(|letter| ValueType::from_letter(*letter).is_some());
        let types = |letters| <[u8]>::iter(letters).filter_map(|letter| ValueType::from_letter(*letter));
        (known(parameters) && known(results)).then(|| (types(parameters), types(results)))
    }
}

const _: () = assert!(size_of::<RawValue>() == 16);
const _: () = assert!((MAX_VALUES * size_of::<RawValue>()) as u64 <= crate::layout::MAILBOX_DATA.bytes());

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    #[test]
    fn letters_stand_for_one_type_each() {
        for (ty, letter) in LETTERS {
            assert_eq!((ty.letter(), ValueType::from_letter(letter)), (letter, Some(ty)));
        }
        assert_eq!(ValueType::from_letter(b'x'), None);
    }

    #[test]
    fn signatures_have_two_parts_of_known_letters() {
        let (parameters, results) = signature::decode(b"iF:v").unwrap();
        assert_eq!(parameters.collect::<Vec<_>>(), [ValueType::I32, ValueType::F64]);
        assert_eq!(results.collect::<Vec<_>>(), [ValueType::V128]);
        assert!(signature::decode(b":").is_some());
        for wrong in [&b""[..], b"i", b"i:x", b"?:", b"i:i:i"] {
            assert!(signature::decode(wrong).is_none(), "{wrong:?}");
        }
    }
}
