//! What sandboxes of one process share of the host: the handle of KVM and the page map of the process.

use kvm_ioctls::Kvm;

use super::error::BuildError;
use crate::{kvm, pagemap::PageMap, vm::VmError};

/// See the module.
#[derive(Debug)]
pub(crate) struct Hypervisor {
    pub(crate) kvm: Kvm,
    pub(crate) page_map: PageMap,
}

impl Hypervisor {
    pub(crate) fn open() -> Result<Self, BuildError> {
        let kvm = kvm::open().map_err(VmError::from)?;
        Ok(Self { kvm, page_map: PageMap::open().map_err(BuildError::PageMap)? })
    }
}
