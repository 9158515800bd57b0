//! Values: how Rust types stand for those of WebAssembly, in arguments and results.

use mote_abi::value::{NULL, RawValue, ValueType};

/// A value whose type is known at run time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// 32-bit integer.
    I32(i32),
    /// 64-bit integer.
    I64(i64),
    /// 32-bit float.
    F32(f32),
    /// 64-bit float.
    F64(f64),
    /// 128-bit vector.
    V128(u128),
    /// Reference to a function; one that is not null can only be returned, and only be told from null.
    FuncRef(Option<FuncRef>),
    /// Reference to something of the host, which a number stands for.
    ExternRef(Option<u32>),
    /// Any other reference, as to an object of the module; as [`Value::FuncRef`].
    OtherRef(Option<OtherRef>),
}

/// A reference to a function inside the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FuncRef(());

/// A reference to something else inside the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OtherRef(());

impl Value {
    /// Its type.
    pub fn ty(&self) -> ValueType {
        match self {
            Self::I32(_) => ValueType::I32,
            Self::I64(_) => ValueType::I64,
            Self::F32(_) => ValueType::F32,
            Self::F64(_) => ValueType::F64,
            Self::V128(_) => ValueType::V128,
            Self::FuncRef(_) => ValueType::FuncRef,
            Self::ExternRef(_) => ValueType::ExternRef,
            Self::OtherRef(_) => ValueType::OtherRef,
        }
    }

    /// Zero, or a null reference.
    pub fn default_of(ty: ValueType) -> Self {
        match ty {
            ValueType::FuncRef => Self::FuncRef(None),
            ValueType::ExternRef => Self::ExternRef(None),
            ValueType::OtherRef => Self::OtherRef(None),
            other => Self::from_raw(other, RawValue::default()),
        }
    }

    pub(crate) fn to_raw(self) -> RawValue {
        match self {
            Self::I32(value) => value.to_raw(),
            Self::I64(value) => value.to_raw(),
            Self::F32(value) => value.to_raw(),
            Self::F64(value) => value.to_raw(),
            Self::V128(value) => value.to_raw(),
            Self::FuncRef(None) | Self::ExternRef(None) | Self::OtherRef(None) => RawValue { low: NULL, high: 0 },
            Self::FuncRef(Some(_)) | Self::OtherRef(Some(_)) => RawValue::default(),
            Self::ExternRef(Some(number)) => number.to_raw(),
        }
    }

    pub(crate) fn from_raw(ty: ValueType, raw: RawValue) -> Self {
        match ty {
            ValueType::I32 => Self::I32(i32::from_raw(raw)),
            ValueType::I64 => Self::I64(i64::from_raw(raw)),
            ValueType::F32 => Self::F32(f32::from_raw(raw)),
            ValueType::F64 => Self::F64(f64::from_raw(raw)),
            ValueType::V128 => Self::V128(u128::from_raw(raw)),
            ValueType::FuncRef => Self::FuncRef((raw.low != NULL).then_some(FuncRef(()))),
            ValueType::ExternRef => Self::ExternRef((raw.low != NULL).then(|| u32::from_raw(raw))),
            ValueType::OtherRef => Self::OtherRef((raw.low != NULL).then_some(OtherRef(()))),
        }
    }
}

macro_rules! from_rust {
    ($($rust:ty => $variant:ident;)*) => {
        $(impl From<$rust> for Value {
            fn from(value: $rust) -> Self {
                Self::$variant(value)
            }
        })*
    };
}

from_rust! {
    i32 => I32;
    i64 => I64;
    f32 => F32;
    f64 => F64;
    u128 => V128;
}

mod sealed {
    use mote_abi::value::{RawValue, ValueType};

    /// A Rust type that stands for one of WebAssembly.
    pub trait Scalar: Copy + 'static {
        const TYPE: ValueType;
        fn to_raw(self) -> RawValue;
        fn from_raw(raw: RawValue) -> Self;
    }

    /// Several of them.
    pub trait List: Sized {
        const TYPES: &'static [ValueType];
        fn push(self, raw: &mut Vec<RawValue>);
        /// There are as many as [`List::TYPES`]; what is missing is zero.
        fn take(raw: &[RawValue]) -> Self;
    }
}

pub(crate) use sealed::{List, Scalar};

/// A type for one value: `i32`, `u32`, `i64`, `u64`, `f32`, `f64`, and `u128` for a vector.
pub trait WasmType: Scalar {}

impl<T: Scalar> WasmType for T {}

/// What a call takes or returns: `()`, one [`WasmType`], or a tuple of up to sixteen.
pub trait WasmValues: List {}

impl<T: List> WasmValues for T {}

macro_rules! scalar {
    ($($rust:ty, $variant:ident, $to:expr, $from:expr;)*) => {
        $(impl Scalar for $rust {
            const TYPE: ValueType = ValueType::$variant;

            fn to_raw(self) -> RawValue {
                let to: fn($rust) -> u64 = $to;
                RawValue { low: to(self), high: 0 }
            }

            fn from_raw(raw: RawValue) -> Self {
                let from: fn(u64) -> $rust = $from;
                from(raw.low)
            }
        })*
    };
}

/// The lower half.
fn low(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).unwrap_or(0)
}

scalar! {
    i32, I32, |value| u64::from(value.cast_unsigned()), |bits| low(bits).cast_signed();
    u32, I32, u64::from, low;
    i64, I64, i64::cast_unsigned, u64::cast_signed;
    u64, I64, |value| value, |bits| bits;
    f32, F32, |value| u64::from(value.to_bits()), |bits| f32::from_bits(low(bits));
    f64, F64, f64::to_bits, f64::from_bits;
}

impl Scalar for u128 {
    const TYPE: ValueType = ValueType::V128;

    fn to_raw(self) -> RawValue {
        let half = |value: u128| u64::try_from(value & u128::from(u64::MAX)).unwrap_or(0);
        RawValue { low: half(self), high: half(self >> 64) }
    }

    fn from_raw(raw: RawValue) -> Self {
        Self::from(raw.low) | Self::from(raw.high) << 64
    }
}

impl<T: Scalar> List for T {
    const TYPES: &'static [ValueType] = &[T::TYPE];

    fn push(self, raw: &mut Vec<RawValue>) {
        raw.push(self.to_raw());
    }

    fn take(raw: &[RawValue]) -> Self {
        T::from_raw(raw.first().copied().unwrap_or_default())
    }
}

macro_rules! tuples {
    ($(($($name:ident)*))*) => {
        $(
            #[allow(non_snake_case, unused_mut, unused_variables, clippy::unused_unit)]
            impl<$($name: Scalar),*> List for ($($name,)*) {
                const TYPES: &'static [ValueType] = &[$($name::TYPE),*];

                fn push(self, raw: &mut Vec<RawValue>) {
                    let ($($name,)*) = self;
                    $(raw.push($name.to_raw());)*
                }

                fn take(raw: &[RawValue]) -> Self {
                    let mut values = raw.iter().copied();
                    ($($name::from_raw(values.next().unwrap_or_default()),)*)
                }
            }
        )*
    };
}

tuples! {
    ()
    (A)
    (A B)
    (A B C)
    (A B C D)
    (A B C D E)
    (A B C D E F)
    (A B C D E F G)
    (A B C D E F G H)
    (A B C D E F G H I)
    (A B C D E F G H I J)
    (A B C D E F G H I J K)
    (A B C D E F G H I J K L)
    (A B C D E F G H I J K L M)
    (A B C D E F G H I J K L M N)
    (A B C D E F G H I J K L M N O)
    (A B C D E F G H I J K L M N O P)
}

/// Types as people write them: `(i32, i64)`.
pub(crate) fn type_names(types: &[ValueType]) -> String {
    let names: Vec<_> = types.iter().map(|ty| ty.name()).collect();
    format!("({})", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn there_and_back<T: List>(value: T) -> T {
        let mut raw = Vec::new();
        value.push(&mut raw);
        assert_eq!(raw.len(), T::TYPES.len());
        T::take(&raw)
    }

    proptest! {
        #[test]
        fn values_come_back(a: i32, b: u64, c: f32, d: f64, e: u128, f: u32, g: i64) {
            let (a2, b2, c2, d2, e2, f2, g2) = there_and_back((a, b, c, d, e, f, g));
            prop_assert_eq!((a2, b2, c2.to_bits(), d2.to_bits()), (a, b, c.to_bits(), d.to_bits()));
            prop_assert_eq!((e2, f2, g2), (e, f, g));
            prop_assert_eq!(there_and_back(a), a);
            for value in [Value::I32(a), Value::I64(g), Value::V128(e), Value::ExternRef(Some(f)), Value::ExternRef(None), Value::FuncRef(None)] {
                prop_assert_eq!(Value::from_raw(value.ty(), value.to_raw()), value);
            }
        }
    }

    #[test]
    fn a_number_that_is_null_is_no_reference() {
        assert_eq!(Value::from_raw(ValueType::ExternRef, RawValue { low: NULL, high: 0 }), Value::ExternRef(None));
        assert_eq!(Value::from_raw(ValueType::FuncRef, RawValue::default()), Value::FuncRef(Some(FuncRef(()))));
    }
}
