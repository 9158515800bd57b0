//! Size classes of small allocations: multiples of 16 bytes up to 128, from there on four for each power of two.

/// Every block is aligned to this, and its size is a multiple of it.
pub const ALIGNMENT: usize = 16;
/// The largest size that has a class.
pub const LARGEST_BYTES: usize = 32 << 10;
/// How many classes there are.
pub const CLASSES: usize = 40;

/// Classes that are [`ALIGNMENT`] apart.
const LINEAR: usize = 8;
/// Binary logarithm of where they end.
const LINEAR_LOG: usize = (LINEAR * ALIGNMENT).ilog2() as usize;

/// The class of the smallest blocks that hold `bytes`; `None` if they are too many.
pub const fn class_of(bytes: usize) -> Option<usize> {
    match bytes {
        0 => Some(0),
        _ if bytes <= LINEAR * ALIGNMENT => Some((bytes - 1) / ALIGNMENT),
        _ if bytes <= LARGEST_BYTES => {
            let log = (bytes - 1).ilog2() as usize;
            Some(LINEAR + (log - LINEAR_LOG) * 4 + (((bytes - 1) >> (log - 2)) & 3))
        }
        _ => None,
    }
}

/// Size of the blocks of a class.
pub const fn class_bytes(class: usize) -> usize {
    if class < LINEAR {
        return (class + 1) * ALIGNMENT;
    }
    let log = LINEAR_LOG + (class - LINEAR) / 4;
    (1 << log) + ((class - LINEAR) % 4 + 1) * (1 << (log - 2))
}

/// The class of the largest blocks that fit into `bytes`; `None` if none does.
pub const fn class_within(bytes: usize) -> Option<usize> {
    match class_of(bytes) {
        None => Some(CLASSES - 1),
        Some(class) if class_bytes(class) == bytes => Some(class),
        Some(class) => class.checked_sub(1),
    }
}

const _: () = assert!(class_bytes(CLASSES - 1) == LARGEST_BYTES && matches!(class_of(LARGEST_BYTES), Some(39)));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_has_the_smallest_class_that_holds_it() {
        for bytes in 0..=LARGEST_BYTES {
            let class = class_of(bytes).unwrap();
            let size = class_bytes(class);
            assert!(size >= bytes && size.is_multiple_of(ALIGNMENT), "{bytes} in {size}");
            assert!(class == 0 || class_bytes(class - 1) < bytes, "{bytes} in {size}");
            assert!(size - bytes <= ALIGNMENT.max(bytes / 4), "{bytes} in {size}");
        }
        assert_eq!(class_of(LARGEST_BYTES + 1), None);
        assert_eq!(class_of(usize::MAX), None);
    }

    #[test]
    fn what_is_left_over_becomes_the_largest_block_that_fits() {
        for bytes in 0..=2 * LARGEST_BYTES {
            match class_within(bytes) {
                None => assert!(bytes < ALIGNMENT),
                Some(class) => {
                    assert!(class_bytes(class) <= bytes);
                    assert!(class + 1 == CLASSES || class_bytes(class + 1) > bytes);
                }
            }
        }
    }
}
