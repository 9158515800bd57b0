//! Numbers on the command line of an invoked function.
//!
//! Integers are decimal with or without sign, or hexadecimal with `0x`; both the signed and the unsigned range of a type
//! are accepted, as WebAssembly's integers have no sign. Floating-point numbers are what Rust's `FromStr` takes.

/// Why a text is no number of its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberError {
    /// Not a number at all.
    Malformed,
    /// A number, but too large or too small for the type.
    OutOfRange,
}

/// A 32-bit integer.
pub fn parse_i32(text: &str) -> Result<i32, NumberError> {
    let value = parse_integer(text)?;
    let unsigned = u32::try_from(value).map(u32::cast_signed);
    i32::try_from(value).or(unsigned).map_err(|_| NumberError::OutOfRange)
}

/// A 64-bit integer.
pub fn parse_i64(text: &str) -> Result<i64, NumberError> {
    let value = parse_integer(text)?;
    let unsigned = u64::try_from(value).map(u64::cast_signed);
    i64::try_from(value).or(unsigned).map_err(|_| NumberError::OutOfRange)
}

/// A vector, as one unsigned integer.
pub fn parse_u128(text: &str) -> Result<u128, NumberError> {
    let (radix, digits) = radix_and_digits(text);
    check_digits(digits, radix)?;
    u128::from_str_radix(digits, radix).map_err(|_| NumberError::OutOfRange)
}

fn parse_integer(text: &str) -> Result<i128, NumberError> {
    let (negative, magnitude) = match text.as_bytes().first() {
        Some(b'-') => (true, text.get(1..)),
        Some(b'+') => (false, text.get(1..)),
        _ => (false, Some(text)),
    };
    let (radix, digits) = radix_and_digits(magnitude.unwrap_or_default());
    check_digits(digits, radix)?;
    let magnitude = i128::from_str_radix(digits, radix).map_err(|_| NumberError::OutOfRange)?;
    Ok(if negative { -magnitude } else { magnitude })
}

fn radix_and_digits(text: &str) -> (u32, &str) {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (16, digits),
        None => (10, text),
    }
}

/// `from_str_radix` would take a second sign and tells no range error from a malformed text.
fn check_digits(digits: &str, radix: u32) -> Result<(), NumberError> {
    let number = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
    if number { Ok(()) } else { Err(NumberError::Malformed) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_i32_survives(value: i32) {
            prop_assert_eq!(parse_i32(&format!("{value}")), Ok(value));
            prop_assert_eq!(parse_i32(&format!("{}", value.cast_unsigned())), Ok(value));
            prop_assert_eq!(parse_i32(&format!("{:#x}", value.cast_unsigned())), Ok(value));
        }

        #[test]
        fn every_i64_survives(value: i64) {
            prop_assert_eq!(parse_i64(&format!("{value}")), Ok(value));
            prop_assert_eq!(parse_i64(&format!("{:#x}", value.cast_unsigned())), Ok(value));
        }

        #[test]
        fn any_text_has_an_answer(text: String) {
            let _ = (parse_i32(&text), parse_i64(&text), parse_u128(&text));
        }
    }

    use alloc::string::String;

    #[test]
    fn errors_tell_which() {
        for bad in ["", "-", "0x", "1.5", "one", "--1", "0x-1", "+-1", " 1"] {
            assert_eq!(parse_i32(bad), Err(NumberError::Malformed), "{bad:?}");
            assert_eq!(parse_u128(bad), Err(NumberError::Malformed), "{bad:?}");
        }
        assert_eq!(parse_i32("4294967296"), Err(NumberError::OutOfRange));
        assert_eq!(parse_i32("-2147483649"), Err(NumberError::OutOfRange));
        assert_eq!(parse_i64("18446744073709551616"), Err(NumberError::OutOfRange));
        assert_eq!(parse_i64(&format!("{}", u128::MAX)), Err(NumberError::OutOfRange));
        assert_eq!(parse_u128(&format!("{}", u128::MAX)), Ok(u128::MAX));
    }
}
