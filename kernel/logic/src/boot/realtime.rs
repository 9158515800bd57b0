//! The time of day as a PC's clock tells it (Motorola MC146818A).

/// The registers of the clock, as they are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Registers {
    /// Register 0.
    pub second: u8,
    /// Register 2.
    pub minute: u8,
    /// Register 4.
    pub hour: u8,
    /// Register 7.
    pub day: u8,
    /// Register 8.
    pub month: u8,
    /// Register 9.
    pub year: u8,
    /// Register B: how the others are to be read.
    pub mode: u8,
}

/// Hours count to 24, and not to 12 twice.
const HOURS_24: u8 = 1 << 1;
/// Values are binary, and not in decimal digits of four bits.
const BINARY: u8 = 1 << 2;
const PM: u8 = 1 << 7;

/// Seconds since 1970-01-01T00:00Z, for a clock that shows UTC in this century; `None` for registers that show no time.
pub fn seconds(registers: &Registers) -> Option<u64> {
    let Registers { second, minute, hour, day, month, year, mode } = *registers;
    let number = |value: u8| match mode & BINARY {
        0 if value & 0xf > 9 || value >> 4 > 9 => None,
        0 => Some(u64::from(value >> 4) * 10 + u64::from(value & 0xf)),
        _ => Some(u64::from(value)),
    };
    let hour = match mode & HOURS_24 {
        0 => number(hour & !PM).filter(|hour| (1..=12).contains(hour))? % 12 + if hour & PM != 0 { 12 } else { 0 },
        _ => number(hour)?,
    };
    let (second, minute, day) = (number(second)?, number(minute)?, number(day)?);
    let (month, year) = (number(month)?, 2000 + number(year)?);
    let is_time = second < 60 && minute < 60 && hour < 24 && (1..=31).contains(&day) && (1..=12).contains(&month) && year < 2100;
    is_time.then(|| ((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

/// Days since 1970-01-01. Until 2100 every fourth year has a day more.
fn days(year: u64, month: u64, day: u64) -> u64 {
    const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let before = BEFORE.get(month as usize - 1).copied().unwrap_or(0);
    let leap_days = (year - 1969) / 4 + u64::from(year.is_multiple_of(4) && month > 2);
    (year - 1970) * 365 + leap_days + before + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_moments() {
        let bcd = Registers { second: 0x30, minute: 0x46, hour: 0x01, day: 0x09, month: 0x09, year: 0x01, mode: HOURS_24 };
        assert_eq!(seconds(&bcd), Some(1_000_000_000 - 10));
        let pm = Registers { second: 0, minute: 0, hour: 12 | PM, day: 29, month: 2, year: 24, mode: BINARY };
        assert_eq!(seconds(&pm), Some(1_709_208_000));
        assert_eq!(seconds(&Registers { hour: 12, ..pm }), Some(1_709_208_000 - 12 * 3600));
        for wrong in [Registers { month: 13, ..pm }, Registers { hour: 0, ..pm }, Registers { second: 0xff, mode: 0, ..pm }] {
            assert_eq!(seconds(&wrong), None);
        }
    }

    proptest! {
        #[test]
        fn days_follow_each_other(year in 2000u64..2100, month in 1u64..=12) {
            let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
            let length = match month {
                2 => 28 + u64::from(year % 4 == 0),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            prop_assert_eq!(days(next_year, next_month, 1) - days(year, month, 1), length);
        }

        #[test]
        fn any_registers(second: u8, minute: u8, hour: u8, day: u8, month: u8, year: u8, mode: u8) {
            let time = seconds(&Registers { second, minute, hour, day, month, year, mode });
            prop_assert!(time.is_none_or(|time| (946_684_800..4_102_444_800).contains(&time)));
        }
    }
}
