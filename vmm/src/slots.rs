//! KVM memory slots: which host memory a guest-physical range is.
//!
//! A slot costs time in proportion to its size, and more once a vCPU exists; so a VM begins with few: the first RAM, the image
//! (two where it is used in place), the module, a ramdisk. RAM beyond the first part of the pool gets its slots as it is used,
//! each as large as all before it.

use std::ops::Range;

use kvm_bindings::{KVM_MEM_READONLY, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use mote_abi::layout::{BASE, CHUNK_BYTES, PAGE_BYTES, POOL_FAR, POOL_NEAR, RAMDISK};

use crate::{guest_ram::GuestRam, image::KernelImage, memory::Mapping, module::PlacedModule, ramdisk::Ramdisk};

/// Smallest slot that is added later.
const FIRST_FAR_SLOT_BYTES: u64 = 64 << 20;

/// The slots of one VM, and which chunks of its pool are used.
#[derive(Debug)]
pub(crate) struct Slots {
    next_slot: u32,
    /// Next chunk of the pool to be handed out.
    next_chunk: u64,
    near_end: u64,
    far_end: u64,
    /// Bytes of the first slot, which begins at [`BASE`] and holds the page tables.
    first_slot_bytes: u64,
    /// First address of [`POOL_NEAR`] that has no slot yet.
    near_slots_end: u64,
    /// First address of [`POOL_FAR`] that has no slot yet.
    far_slots_end: u64,
    /// As `next_chunk`, but after a restore it still counts what was handed out before, as long as that takes memory.
    kept_end: u64,
    /// The modules that have a slot, with its number, by their addresses.
    modules: Vec<(PlacedModule, u32)>,
    /// Numbers of slots that were taken away: there are no more than some thousands.
    free_slots: Vec<u32>,
}

/// The slot that holds the page tables.
const FIRST_SLOT: u32 = 0;

impl Slots {
    /// Adds the slots that every VM begins with. What is shared between VMs is read-only. A guest that goes on from a snapshot
    /// has no use for its module any more. `first_slot_bytes` is for RAM from [`BASE`] on, as far as there is so much.
    pub(crate) fn add(
        vm: &VmFd,
        ram: &GuestRam,
        kernel: &KernelImage,
        modules: &[PlacedModule],
        ramdisk: Option<&Ramdisk>,
        first_slot_bytes: u64,
    ) -> Result<Self, kvm_ioctls::Error> {
        let mut slots = Self::new(ram);
        slots.first_slot_bytes = first_slot_bytes.min(ram.near.bytes());
        slots.near_slots_end = BASE.start + slots.first_slot_bytes;
        slots.add_one(vm, BASE.start, &ram.near, 0, slots.first_slot_bytes, 0)?;
        let image = kernel.mappings().iter().map(|(address, mapping)| (*address, mapping));
        let ramdisk = ramdisk.map(|ramdisk| (RAMDISK.start, ramdisk.mapping()));
        for (address, mapping) in image.chain(ramdisk) {
            slots.add_shared(vm, address, mapping)?;
        }
        for placed in modules {
            slots.add_module(vm, placed)?;
        }
        Ok(slots)
    }

    /// The modules that are there.
    pub(crate) fn modules(&self) -> impl DoubleEndedIterator<Item = &PlacedModule> {
        self.modules.iter().map(|(placed, _)| placed)
    }

    /// Adds a module, behind all others.
    pub(crate) fn add_module(&mut self, vm: &VmFd, placed: &PlacedModule) -> Result<(), kvm_ioctls::Error> {
        let slot = self.add_shared(vm, placed.address, placed.module.mapping())?;
        self.modules.push((placed.clone(), slot));
        Ok(())
    }

    /// Has these modules and no others.
    pub(crate) fn set_modules(&mut self, vm: &VmFd, wanted: &[PlacedModule]) -> Result<(), kvm_ioctls::Error> {
        let same = self.modules().zip(wanted).take_while(|(here, wanted)| here.is(wanted)).count();
        while self.modules.len() > same
            && let Some((placed, slot)) = self.modules.pop()
        {
            self.remove_module(vm, &placed, slot)?;
        }
        wanted.iter().skip(same).try_for_each(|placed| self.add_module(vm, placed))
    }

    fn remove_module(&mut self, vm: &VmFd, placed: &PlacedModule, slot: u32) -> Result<(), kvm_ioctls::Error> {
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: placed.address,
            memory_size: 0,
            userspace_addr: placed.module.mapping().host_address(),
        };
        // SAFETY: a slot that is removed refers to no memory any more.
        unsafe { vm.set_user_memory_region(region)? };
        self.free_slots.push(slot);
        Ok(())
    }

    /// Adds what is shared between VMs, and tells the number of its slot.
    fn add_shared(&mut self, vm: &VmFd, address: u64, mapping: &Mapping) -> Result<u32, kvm_ioctls::Error> {
        self.add_one(vm, address, mapping, 0, mapping.bytes().next_multiple_of(PAGE_BYTES), KVM_MEM_READONLY)
    }

    /// Takes away all that the processor may have kept of the page tables, which the host has changed: shadow paging drops it
    /// only with the slot.
    pub(crate) fn flush(&self, vm: &VmFd, ram: &GuestRam) -> Result<(), kvm_ioctls::Error> {
        let region = |memory_size| kvm_userspace_memory_region {
            slot: FIRST_SLOT,
            flags: 0,
            guest_phys_addr: BASE.start,
            memory_size,
            userspace_addr: ram.near.host_address(),
        };
        // SAFETY: the slot is removed, and then added as `add` made it, with a mapping that lives longer than the VM.
        unsafe {
            vm.set_user_memory_region(region(0))?;
            vm.set_user_memory_region(region(self.first_slot_bytes))
        }
    }

    /// First address of the pool that was not handed out.
    pub(crate) fn next_chunk(&self) -> u64 {
        self.next_chunk
    }

    /// Hands out chunks from here on, after those of a snapshot; the slots of those are added where they are missing.
    pub(crate) fn set_next_chunk(&mut self, vm: &VmFd, ram: &GuestRam, next_chunk: u64) -> Result<(), kvm_ioctls::Error> {
        if next_chunk > self.near_slots_end {
            self.add_near(vm, ram)?;
        }
        if let Some(far) = &ram.far
            && next_chunk > self.far_slots_end
        {
            let (start, offset) = (self.far_slots_end, self.far_slots_end - POOL_FAR.start);
            let bytes = (next_chunk - start).max(FIRST_FAR_SLOT_BYTES).min(self.far_end - start);
            self.add_one(vm, start, far, offset, bytes, 0)?;
            self.far_slots_end += bytes;
        }
        self.next_chunk = next_chunk;
        self.kept_end = self.kept_end.max(next_chunk);
        Ok(())
    }

    /// The parts of RAM that a guest can have touched.
    pub(crate) fn used(&self) -> [Range<u64>; 2] {
        self.up_to(self.next_chunk)
    }

    /// The same with what it touched before it went back to a snapshot.
    pub(crate) fn kept(&self) -> [Range<u64>; 2] {
        self.up_to(self.kept_end.max(self.next_chunk))
    }

    /// Nothing from `end` on takes memory any more.
    pub(crate) fn set_kept_end(&mut self, end: u64) {
        self.kept_end = end.next_multiple_of(CHUNK_BYTES).max(self.next_chunk);
    }

    fn up_to(&self, end: u64) -> [Range<u64>; 2] {
        let far = end >= POOL_FAR.start;
        let near_end = if far { self.near_end } else { end };
        let far_end = if far { end } else { POOL_FAR.start };
        [BASE.start..near_end, POOL_FAR.start..far_end]
    }

    fn new(ram: &GuestRam) -> Self {
        let near_bytes = ram.pool_bytes.min(POOL_NEAR.bytes());
        Self {
            next_slot: 0,
            next_chunk: POOL_NEAR.start,
            near_end: POOL_NEAR.start + near_bytes,
            far_end: POOL_FAR.start + ram.pool_bytes - near_bytes,
            first_slot_bytes: 0,
            near_slots_end: POOL_NEAR.start + near_bytes,
            far_slots_end: POOL_FAR.start,
            kept_end: POOL_NEAR.start,
            modules: Vec::new(),
            free_slots: Vec::new(),
        }
    }

    /// The next free chunk, with a slot behind it; `None` if the pool is used up.
    pub(crate) fn take_chunk(&mut self, vm: &VmFd, ram: &GuestRam) -> Result<Option<u64>, kvm_ioctls::Error> {
        if self.next_chunk == self.near_end {
            self.next_chunk = POOL_FAR.start;
        }
        let chunk = self.next_chunk;
        if chunk == self.far_end {
            return Ok(None);
        }
        if chunk == self.near_slots_end {
            self.add_near(vm, ram)?;
        }
        if let (true, Some(far)) = (chunk == self.far_slots_end, &ram.far) {
            let offset = chunk - POOL_FAR.start;
            let bytes = offset.max(FIRST_FAR_SLOT_BYTES).min(self.far_end - chunk);
            self.add_one(vm, chunk, far, offset, bytes, 0)?;
            self.far_slots_end += bytes;
        }
        self.next_chunk += CHUNK_BYTES;
        Ok(Some(chunk))
    }

    /// Adds what the first part of the pool has beyond the first slot.
    fn add_near(&mut self, vm: &VmFd, ram: &GuestRam) -> Result<(), kvm_ioctls::Error> {
        let start = self.near_slots_end;
        if start < self.near_end {
            self.add_one(vm, start, &ram.near, start - BASE.start, self.near_end - start, 0)?;
            self.near_slots_end = self.near_end;
        }
        Ok(())
    }

    /// Chunks that are left.
    pub(crate) fn free_chunks(&self) -> u64 {
        let far = self.next_chunk >= POOL_FAR.start;
        let near_bytes = if far { 0 } else { self.near_end - self.next_chunk };
        let far_bytes = self.far_end - if far { self.next_chunk } else { POOL_FAR.start };
        (near_bytes + far_bytes) / CHUNK_BYTES
    }

    fn add_one(
        &mut self,
        vm: &VmFd,
        address: u64,
        mapping: &Mapping,
        offset: u64,
        bytes: u64,
        flags: u32,
    ) -> Result<u32, kvm_ioctls::Error> {
        debug_assert!(offset + bytes <= mapping.bytes().next_multiple_of(PAGE_BYTES));
        let slot = self.free_slots.last().copied().unwrap_or(self.next_slot);
        let region = kvm_userspace_memory_region {
            slot,
            flags,
            guest_phys_addr: address,
            memory_size: bytes,
            userspace_addr: mapping.host_address() + offset,
        };
        // SAFETY: the range lies in the mapping when that is counted in whole pages, which is how it is mapped, and the
        // mapping lives longer than the VM: whoever owns the VM owns its RAM and a share of kernel and module.
        unsafe { vm.set_user_memory_region(region)? };
        if self.free_slots.pop().is_none() {
            self.next_slot += 1;
        }
        Ok(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_is_counted_and_both_parts_are_used() {
        for ram_bytes in [16 << 20, 40 << 20, 42 << 20, 1 << 30] {
            let ram = GuestRam::new(ram_bytes).unwrap();
            let mut slots = Slots::new(&ram);
            // Without a VM no slot can be added; far chunks are counted all the same.
            slots.far_slots_end = slots.far_end;
            assert_eq!(slots.free_chunks(), (ram_bytes - BASE.bytes()) / CHUNK_BYTES);
            let near = (slots.near_end - slots.next_chunk) / CHUNK_BYTES;
            slots.next_chunk += CHUNK_BYTES;
            assert_eq!(slots.free_chunks(), (ram_bytes - BASE.bytes()) / CHUNK_BYTES - 1);
            assert!(near <= POOL_NEAR.bytes() / CHUNK_BYTES);
        }
    }
}
