//! The program of a seccomp filter: a binary search for the number of the call, and behind it the conditions on arguments
//! as the crate `seccompiler` compiles them.
//!
//! The crate's own filter compares the number with one call after the other. The host's kernel runs a new filter once for
//! each number that there is, to find those that it need not ask about, and translates it into machine code. Both take
//! longer than all else in confining a thread; a search is half as long and answers after a few steps.

use std::collections::BTreeMap;

use seccompiler::{BackendError, BpfProgram, SeccompAction, SeccompRule, sock_filter};

/// System calls by number, with alternative conditions; none for any arguments.
pub(super) type Rules = BTreeMap<u32, Vec<SeccompRule>>;

/// Where `struct seccomp_data` (linux/seccomp.h) has the number and the architecture.
const NUMBER_OFFSET: u32 = 0;
const ARCHITECTURE_OFFSET: u32 = 4;
/// AUDIT_ARCH_X86_64 (linux/audit.h). Calls of 32-bit code have another; those of x32 have bit 30 set in their number.
const X86_64: u32 = 0xc000_003e;

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const IF_AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const ALWAYS: u32 = libc::BPF_JMP | libc::BPF_JA;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// Numbers without conditions that are compared one after the other at the end of a search.
const MAX_LEAF: usize = 4;

/// A program that allows what the rules say, and ends the process at any other call. Not with an errno: who makes one is
/// no code of ours, and gets no second try.
pub(super) fn compile(rules: &Rules) -> Result<BpfProgram, BackendError> {
    let mut program = vec![load(ARCHITECTURE_OFFSET), jump(IF_EQUAL, X86_64, 1, 0), kill(), load(NUMBER_OFFSET)];
    program.extend(search(&rules.iter().collect::<Vec<_>>())?);
    Ok(program)
}

/// Ends in an answer whatever the loaded number is, as all parts of it do.
fn search(rules: &[(&u32, &Vec<SeccompRule>)]) -> Result<BpfProgram, BackendError> {
    match rules {
        [] => Ok(vec![kill()]),
        [(number, alternatives)] if !alternatives.is_empty() => conditional(**number, alternatives),
        leaf if leaf.len() <= MAX_LEAF && leaf.iter().all(|(_, alternatives)| alternatives.is_empty()) => {
            let over_the_rest = |index: usize| distance(leaf.len() - index);
            let compare = |(index, (number, _)): (usize, &(&u32, _))| Ok(jump(IF_EQUAL, **number, over_the_rest(index)?, 0));
            let compares = leaf.iter().enumerate().map(compare);
            compares.chain([Ok(kill()), Ok(allow())]).collect()
        }
        _ => {
            let (lower, upper) = rules.split_at(rules.len() / 2);
            let first = upper.first().map_or(0, |(number, _)| **number);
            let lower = search(lower)?;
            // Only jumps without a condition go further than 255 instructions.
            let mut program = match (u8::try_from(lower.len()), u32::try_from(lower.len())) {
                (Ok(over_lower), _) => vec![jump(IF_AT_LEAST, first, over_lower, 0)],
                (Err(_), Ok(over_lower)) => vec![jump(IF_AT_LEAST, first, 0, 1), instruction(ALWAYS, over_lower, 0, 0)],
                (Err(_), Err(_)) => return Err(BackendError::FilterTooLarge(lower.len())),
            };
            program.extend(lower);
            program.extend(search(upper)?);
            Ok(program)
        }
    }
}

fn conditional(number: u32, alternatives: &[SeccompRule]) -> Result<BpfProgram, BackendError> {
    let mut checks = BpfProgram::new();
    for rule in alternatives {
        // It goes on behind the instruction that follows it if a condition does not hold.
        checks.extend(BpfProgram::from(rule.clone()));
        checks.push(allow());
    }
    let mut program = vec![jump(IF_EQUAL, number, 0, distance(checks.len())?)];
    program.extend(checks);
    program.push(kill());
    Ok(program)
}

/// As a conditional jump has it.
fn distance(instructions: usize) -> Result<u8, BackendError> {
    u8::try_from(instructions).map_err(|_| BackendError::FilterTooLarge(instructions))
}

fn load(offset: u32) -> sock_filter {
    instruction(LOAD, offset, 0, 0)
}

/// Over so many instructions if true and if false.
fn jump(code: u32, value: u32, if_true: u8, if_false: u8) -> sock_filter {
    instruction(code, value, if_true, if_false)
}

fn allow() -> sock_filter {
    instruction(RETURN, SeccompAction::Allow.into(), 0, 0)
}

fn kill() -> sock_filter {
    instruction(RETURN, SeccompAction::KillProcess.into(), 0, 0)
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    // All codes of the classic BPF fit.
    sock_filter { code: u16::try_from(code).unwrap_or(u16::MAX), jt, jf, k }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::{collection::btree_map, prelude::*};
    use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition};

    /// A system call as a filter sees it.
    #[derive(Clone, Copy)]
    pub(crate) struct Data {
        pub(crate) number: u32,
        pub(crate) architecture: u32,
        pub(crate) arguments: [u64; 6],
    }

    impl Data {
        pub(crate) fn new(number: i64, arguments: &[u64]) -> Self {
            let mut data = Self { number: u32::try_from(number).unwrap(), architecture: X86_64, arguments: [0; 6] };
            data.arguments[..arguments.len()].copy_from_slice(arguments);
            data
        }

        fn word(&self, offset: u32) -> u32 {
            match offset {
                NUMBER_OFFSET => self.number,
                ARCHITECTURE_OFFSET => self.architecture,
                _ => {
                    let argument = self.arguments[(offset as usize - 16) / 8];
                    u32::try_from(argument >> (8 * (offset % 8)) & u64::from(u32::MAX)).unwrap()
                }
            }
        }
    }

    /// Runs a program as the host's kernel does; whether it allows the call.
    pub(crate) fn allows(program: &[sock_filter], data: &Data) -> bool {
        const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
        const IF_GREATER: u32 = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
        let (mut accumulator, mut at) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at].clone();
            let branch = |taken: bool| usize::from(if taken { jt } else { jf });
            at += 1;
            match u32::from(code) {
                LOAD => accumulator = data.word(k),
                AND => accumulator &= k,
                ALWAYS => at += k as usize,
                IF_EQUAL => at += branch(accumulator == k),
                IF_AT_LEAST => at += branch(accumulator >= k),
                IF_GREATER => at += branch(accumulator > k),
                RETURN => {
                    let allowed = k == u32::from(SeccompAction::Allow);
                    assert!(allowed || k == u32::from(SeccompAction::KillProcess));
                    return allowed;
                }
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    /// The second argument has one of these values.
    fn alternatives(values: &[u64]) -> Vec<SeccompRule> {
        let condition = |value| SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value).unwrap();
        values.iter().map(|value| SeccompRule::new(vec![condition(*value)]).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn what_the_rules_say_is_allowed_and_nothing_else(
            rules in btree_map(0u32..500, prop::collection::vec(0u64..8, 0..4), 0..200),
        ) {
            let program = compile(&rules.iter().map(|(number, values)| (*number, alternatives(values))).collect()).unwrap();
            for number in (0..600).chain([u32::MAX]) {
                for value in [0, 1, 5, 8, 1 << 32] {
                    let data = Data { number, architecture: X86_64, arguments: [9, value, 9, 9, 9, 9] };
                    let as_int = value & u64::from(u32::MAX);
                    let expected = rules.get(&number).is_some_and(|values| values.is_empty() || values.contains(&as_int));
                    prop_assert_eq!(allows(&program, &data), expected, "call {}, value {}", number, value);
                    let x32 = Data { number: number | 1 << 30, ..data };
                    let i386 = Data { architecture: 0x4000_0003, ..data };
                    prop_assert!(!allows(&program, &x32) && !allows(&program, &i386), "call {}", number);
                }
            }
        }
    }

    #[test]
    fn too_many_conditions_are_an_error() {
        let rules = Rules::from([(1, alternatives(&[0; 100]))]);
        assert!(matches!(compile(&rules), Err(BackendError::FilterTooLarge(_))));
    }
}
