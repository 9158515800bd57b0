//! Values of scripts: arguments, and patterns that results must match.

use mote_vmm::{Value, ValueType};
use wast::{
    core::{AbstractHeapType, HeapType, NanPattern, V128Pattern, WastArgCore, WastRetCore},
    token::{F32, F64},
};

use crate::support::engine::by_engine;

/// The proposal that a value needs which the engine does not have.
pub(crate) type Lacking = &'static str;

/// A result as bits, which can be compared also if it is no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bits {
    pub(crate) ty: ValueType,
    /// Of a reference [`NULL`] or what it stands for; of one to something inside the sandbox that is not null 0.
    pub(crate) bits: u128,
}

/// A null reference in [`Bits::bits`].
pub(crate) const NULL: u128 = u128::MAX;

impl From<Value> for Bits {
    fn from(value: Value) -> Self {
        let bits = match value {
            Value::I32(value) => value.cast_unsigned().into(),
            Value::I64(value) => value.cast_unsigned().into(),
            Value::F32(value) => value.to_bits().into(),
            Value::F64(value) => value.to_bits().into(),
            Value::V128(value) => value,
            Value::FuncRef(None) | Value::ExternRef(None) | Value::OtherRef(None) => NULL,
            Value::FuncRef(Some(_)) | Value::OtherRef(Some(_)) => 0,
            Value::ExternRef(Some(number)) => number.into(),
        };
        Self { ty: value.ty(), bits }
    }
}

impl Bits {
    /// Whether they are the same. Which of its NaNs an instruction returns is open (WebAssembly specification, "NaN
    /// Propagation"), and differs between builds of the interpreter: in a vector any lanes may be floats.
    pub(crate) fn is_like(self, other: Self) -> bool {
        let in_lanes = |width_bits: u32, bits: u32| {
            let lane = |value: u128, index: u32| (value >> (index * width_bits)) & (u128::MAX >> (128 - width_bits));
            (0..bits / width_bits).all(|index| {
                let (one, two) = (lane(self.bits, index), lane(other.bits, index));
                one == two || is_nan(width_bits, one) && is_nan(width_bits, two)
            })
        };
        self.ty == other.ty
            && match self.ty {
                ValueType::F32 => in_lanes(32, 32),
                ValueType::F64 => in_lanes(64, 64),
                ValueType::V128 => in_lanes(32, 128) || in_lanes(64, 128),
                _ => self.bits == other.bits,
            }
    }
}

fn is_nan(width_bits: u32, bits: u128) -> bool {
    let (infinity, sign) = if width_bits == 32 { (0x7f80_0000, 1 << 31) } else { (0x7ff0_0000_0000_0000, 1 << 63) };
    bits & !sign > infinity
}

/// The value of an argument.
pub(crate) fn argument(argument: &WastArgCore<'_>) -> Result<Value, Lacking> {
    Ok(match argument {
        WastArgCore::I32(value) => Value::I32(*value),
        WastArgCore::I64(value) => Value::I64(*value),
        WastArgCore::F32(value) => Value::F32(f32::from_bits(value.bits)),
        WastArgCore::F64(value) => Value::F64(f64::from_bits(value.bits)),
        WastArgCore::V128(value) => Value::V128(u128::from_le_bytes(value.to_le_bytes())),
        WastArgCore::RefNull(ty) => Value::default_of(reference(ty)?),
        WastArgCore::RefExtern(number) => Value::ExternRef(Some(*number)),
        WastArgCore::RefHost(_) => return Err(by_engine("gc", "references to the host's values outside of externref")),
    })
}

/// The reference type that the engine has for a heap type.
fn reference(ty: &HeapType<'_>) -> Result<ValueType, Lacking> {
    let other = |lacking| by_engine(Err(lacking), Ok(ValueType::OtherRef));
    match ty {
        HeapType::Abstract { shared: false, ty: AbstractHeapType::Func | AbstractHeapType::NoFunc } => Ok(ValueType::FuncRef),
        HeapType::Abstract { shared: false, ty: AbstractHeapType::Extern | AbstractHeapType::NoExtern } => {
            Ok(ValueType::ExternRef)
        }
        HeapType::Abstract { ty: AbstractHeapType::Exn | AbstractHeapType::NoExn, shared: false } => other("exceptions"),
        HeapType::Abstract { shared: false, .. } => other("gc"),
        HeapType::Abstract { shared: true, .. } => Err("threads"),
        HeapType::Concrete(_) => other("function-references"),
        HeapType::Exact(_) => Err("custom-descriptors"),
    }
}

/// What a result must be.
#[derive(Debug)]
pub(crate) enum Expected {
    I32(i32),
    I64(i64),
    F32(Float),
    F64(Float),
    /// A vector, by lanes of so many bits.
    V128(u32, Vec<Float>),
    /// Null, of this type if there is one.
    Null(Option<ValueType>),
    /// Something of the host, with this number if there is one.
    Extern(Option<u32>),
    Function,
    /// Something of the module that is no function, or of the host.
    Other,
    Either(Vec<Expected>),
}

/// What a float, or a lane of a vector, must be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Float {
    Bits(u128),
    CanonicalNan,
    ArithmeticNan,
}

impl Expected {
    pub(crate) fn new(result: &WastRetCore<'_>) -> Result<Self, Lacking> {
        Ok(match result {
            WastRetCore::I32(value) => Self::I32(*value),
            WastRetCore::I64(value) => Self::I64(*value),
            WastRetCore::F32(pattern) => Self::F32(float32(pattern)),
            WastRetCore::F64(pattern) => Self::F64(float64(pattern)),
            WastRetCore::V128(pattern) => vector(pattern),
            WastRetCore::RefNull(ty) => Self::Null(ty.as_ref().map(reference).transpose()?),
            WastRetCore::RefExtern(number) => Self::Extern(*number),
            WastRetCore::RefFunc(None) => Self::Function,
            WastRetCore::RefFunc(Some(_)) => return by_engine(Err("function-references"), Ok(Self::Function)),
            WastRetCore::Either(all) => Self::Either(all.iter().map(Self::new).collect::<Result<_, _>>()?),
            _ => return by_engine(Err("gc"), Ok(Self::Other)),
        })
    }

    pub(crate) fn matches(&self, value: Bits) -> bool {
        let Bits { ty, bits } = value;
        match (self, ty) {
            (Self::I32(expected), ValueType::I32) => bits == expected.cast_unsigned().into(),
            (Self::I64(expected), ValueType::I64) => bits == expected.cast_unsigned().into(),
            (Self::F32(expected), ValueType::F32) => expected.matches(32, bits),
            (Self::F64(expected), ValueType::F64) => expected.matches(64, bits),
            (Self::V128(lane_bits, lanes), ValueType::V128) => {
                let lane = |index: u32| (bits >> (index * lane_bits)) & (u128::MAX >> (128 - lane_bits));
                lanes.iter().zip(0..).all(|(expected, index)| expected.matches(*lane_bits, lane(index)))
            }
            (Self::Null(expected), ValueType::FuncRef | ValueType::ExternRef | ValueType::OtherRef) => {
                bits == NULL && expected.is_none_or(|expected| is_null_of(expected, ty))
            }
            (Self::Extern(number), ValueType::ExternRef) => bits != NULL && number.is_none_or(|number| bits == number.into()),
            (Self::Function, ValueType::FuncRef) | (Self::Function | Self::Other, ValueType::OtherRef) => bits != NULL,
            (Self::Either(all), _) => all.iter().any(|one| one.matches(value)),
            _ => false,
        }
    }
}

/// Whether a null reference of one type is one of what a script calls another: functions of a type that is known are other
/// references to the library.
fn is_null_of(expected: ValueType, found: ValueType) -> bool {
    found == expected || matches!((expected, found), (ValueType::FuncRef, ValueType::OtherRef))
}

impl Float {
    /// Whether a float of 32 or 64 bits, or any other lane, is that (WebAssembly specification, "Floating-Point Values").
    fn matches(self, width_bits: u32, bits: u128) -> bool {
        let quiet = if width_bits == 32 { 0x7fc0_0000 } else { 0x7ff8_0000_0000_0000 };
        let sign = 1 << (width_bits - 1);
        match self {
            Self::Bits(expected) => bits == expected,
            Self::CanonicalNan => bits & !sign == quiet,
            Self::ArithmeticNan => bits & quiet == quiet,
        }
    }
}

fn float32(pattern: &NanPattern<F32>) -> Float {
    match pattern {
        NanPattern::CanonicalNan => Float::CanonicalNan,
        NanPattern::ArithmeticNan => Float::ArithmeticNan,
        NanPattern::Value(value) => Float::Bits(value.bits.into()),
    }
}

fn float64(pattern: &NanPattern<F64>) -> Float {
    match pattern {
        NanPattern::CanonicalNan => Float::CanonicalNan,
        NanPattern::ArithmeticNan => Float::ArithmeticNan,
        NanPattern::Value(value) => Float::Bits(value.bits.into()),
    }
}

fn vector(pattern: &V128Pattern) -> Expected {
    let lanes = |bits: &mut dyn Iterator<Item = u128>| bits.map(Float::Bits).collect();
    match pattern {
        V128Pattern::I8x16(all) => Expected::V128(8, lanes(&mut all.iter().map(|lane| lane.cast_unsigned().into()))),
        V128Pattern::I16x8(all) => Expected::V128(16, lanes(&mut all.iter().map(|lane| lane.cast_unsigned().into()))),
        V128Pattern::I32x4(all) => Expected::V128(32, lanes(&mut all.iter().map(|lane| lane.cast_unsigned().into()))),
        V128Pattern::I64x2(all) => Expected::V128(64, lanes(&mut all.iter().map(|lane| lane.cast_unsigned().into()))),
        V128Pattern::F32x4(all) => Expected::V128(32, all.iter().map(float32).collect()),
        V128Pattern::F64x2(all) => Expected::V128(64, all.iter().map(float64).collect()),
    }
}
