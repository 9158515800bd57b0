//! What sandboxes of one process share of the host: the handle of KVM and the page map of the process.

use std::sync::OnceLock;

use kvm_ioctls::Kvm;

use super::error::BuildError;
use crate::{kvm, memory::MemoryError, pagemap::PageMap, vm::VmError};

/// See the module.
#[derive(Debug)]
pub(crate) struct Hypervisor {
    pub(crate) kvm: Kvm,
    /// Opened when it is first needed: who takes no snapshots needs no /proc.
    page_map: OnceLock<PageMap>,
}

impl Hypervisor {
    pub(crate) fn open() -> Result<Self, BuildError> {
        Ok(Self { kvm: kvm::open().map_err(VmError::from)?, page_map: OnceLock::new() })
    }

    /// The page map, without which nothing can be restored.
    pub(crate) fn page_map(&self) -> Result<&PageMap, MemoryError> {
        if let Some(page_map) = self.page_map.get() {
            return Ok(page_map);
        }
        let opened = PageMap::open().map_err(MemoryError::PageMap)?;
        Ok(self.page_map.get_or_init(|| opened))
    }
}
