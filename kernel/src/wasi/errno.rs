//! Error numbers as functions of preview 1 return them.

use mote_abi::errno::Errno;

/// What the function returns to the module.
pub(super) fn to_code(result: Result<(), Errno>) -> i32 {
    result.map_or_else(|errno| i32::from(errno.code()), |()| 0)
}
