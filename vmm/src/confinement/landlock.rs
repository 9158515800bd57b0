//! Landlock: no file can be opened, made, removed or renamed but beneath the directories of the VM, and none executed. Where
//! the kernel's ABI has it: no TCP socket can be bound or connected, and no signal and no connection to a Unix socket
//! leaves the threads of the VM. Descriptors that are open stay as they are.

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope, make_bitflags,
};

use super::{ConfinementError, Layer, Permissions};
use crate::directory::Access;

/// The newest that the crate knows. What an older kernel lacks of it is left out by the crate.
const NEWEST: ABI = ABI::V9;

/// Confines the calling thread; the ABI version that the kernel has.
pub(super) fn restrict(permissions: &Permissions) -> Result<u32, ConfinementError> {
    let status =
        enforce(permissions).map_err(|error| ConfinementError::Failed { layer: Layer::Landlock, message: error.to_string() })?;
    let unsupported = |remedy| ConfinementError::Unsupported { layer: Layer::Landlock, remedy };
    match status.landlock {
        LandlockStatus::NotImplemented => {
            Err(unsupported("it came with Linux 5.13 (CONFIG_SECURITY_LANDLOCK), and a container may hide it"))
        }
        LandlockStatus::NotEnabled => Err(unsupported("boot it with landlock in the list lsm=, as lsm=landlock,yama,bpf")),
        LandlockStatus::Available { .. } if status.ruleset == RulesetStatus::NotEnforced => {
            Err(ConfinementError::Failed { layer: Layer::Landlock, message: "the kernel enforces no rule".into() })
        }
        LandlockStatus::Available { effective_abi, kernel_abi } => {
            Ok(kernel_abi.and_then(|abi| u32::try_from(abi).ok()).unwrap_or(effective_abi as u32))
        }
    }
}

fn enforce(permissions: &Permissions) -> Result<landlock::RestrictionStatus, RulesetError> {
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    for (directory, access) in &permissions.directories {
        rules = rules.add_rule(PathBeneath::new(directory, rights(*access)))?;
    }
    rules.restrict_self()
}

/// WASI makes directories, regular files and symbolic links. It renames and links whatever is there, for which Landlock wants
/// the right to make it; no system call that could make a device, pipe or Unix socket is allowed.
fn rights(access: Access) -> BitFlags<AccessFs> {
    let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    match access {
        Access::ReadOnly => read,
        Access::ReadWrite => {
            read | make_bitflags!(AccessFs::{
                WriteFile | Truncate | MakeReg | MakeDir | MakeSym | MakeFifo | MakeSock | MakeChar | MakeBlock | RemoveFile | RemoveDir | Refer
            })
        }
    }
}
