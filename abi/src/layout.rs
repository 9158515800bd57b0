//! The guest's address map. No other file spells a guest address.
//!
//! Guest-physical and guest-virtual addresses are equal below 4 GiB, but for the RAM pool.
//!
//! ```text
//! guest-physical                                            guest-virtual, rights in ring 3
//! 0x0000_0000 ┌──────────────────────────┐                  nothing: null pointers fault
//! 0x0010_0000 │ doorbell, no memory      │ DOORBELL         rw-: a store is a hypercall
//! 0x0010_1000 │ fault doorbell, no mem.  │ FAULT_DOORBELL   nothing (ring 0: rw-)
//! 0x0100_0000 │ kernel image, shared     │ IMAGE            text r-x, constants r--
//! 0x0160_0000 │ base RAM                 │ BASE
//!             │   .data .bss             │ KERNEL_DATA      rw-
//!             │   boot information       │ BOOT_INFO        r--, written by the host before each call
//!             │   host status            │ HOST_STATUS      r--, written by the host at any time
//!             │   mailbox                │ MAILBOX          rw-
//!             │   output ring            │ RING_HEAD, _DATA rw-
//!             │   arguments and so on    │ CONFIG           r--
//!             │   stack between guards   │ STACK            rw-
//!             │   announcements          │ ANNOUNCED        rw-
//! 0x01a0_0000 │   read-ahead of files    │ READ_AHEAD       rw-
//! 0x01c0_0000 │ system area              │ SYSTEM           nothing (ring 0: stubs r-x, their stack rw-, tables r--)
//! 0x01e0_0000 │ RAM pool, first part     │ POOL_NEAR        2 MiB chunks of both parts are mapped rw- where the
//! 0x1000_0000 │ module file, shared      │ MODULE           r--, up to 2 GiB
//! 0x9000_0000 │ ramdisk archive, shared  │ RAMDISK          r--, up to 1.5 GiB
//! 0x1_0000_0000 RAM pool, the rest       │ POOL_FAR         kernel touches the demand regions:
//!                                          0x0100_0000_0000  HEAP   small allocations
//!                                          0x0200_0000_0000  MEDIUM 64 KiB up to 2 MiB
//!                                          0x0400_0000_0000  SYSTEM_VIEW  r--, the system area
//!                                          0x1000_0000_0000  LARGE  2 MiB and more, one slot each
//!                                          0x4000_0000_0000  LINEAR linear memories of compiled code, as far as announced
//! ```
//!
//! The demand regions are far larger than RAM. A first touch of one of their 2 MiB pages faults into a ring-0 stub, which
//! rings [`FAULT_DOORBELL`]; the host maps the next free chunk of the pool there, or ends the VM when none is left. So
//! address space may be reserved generously and only what is touched costs RAM.
//!
//! The kernel may read the page tables, in [`SYSTEM_VIEW`], and so knows which memory is still untouched and zero.
//!
//! A kernel that starts without a VMM ([`MONITOR`]) finds image, base RAM and system area at these guest-physical addresses too, but
//! module, ramdisk and pool wherever the machine has memory.
//!
//! Base, system area and the first part of the pool lie side by side, so that one memory slot holds them: slots are what
//! making a VM costs most.

/// Bytes of a small page.
pub const PAGE_BYTES: u64 = 4096;
/// Bytes of a large page, and of the chunks in which the pool is handed out.
pub const CHUNK_BYTES: u64 = 2 << 20;

/// A half-open range of guest addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// First address.
    pub start: u64,
    /// First address after the region.
    pub end: u64,
}

impl Region {
    const fn new(start: u64, bytes: u64) -> Self {
        Self { start, end: start + bytes }
    }

    /// Size in bytes.
    pub const fn bytes(self) -> u64 {
        self.end - self.start
    }

    /// Whether `address` lies in the region.
    pub const fn contains(self, address: u64) -> bool {
        self.start <= address && address < self.end
    }

    /// Whether the `bytes` bytes from `start` all lie in the region; never overflows.
    pub const fn contains_range(self, start: u64, bytes: u64) -> bool {
        match start.checked_add(bytes) {
            Some(end) => self.start <= start && end <= self.end,
            None => false,
        }
    }
}

/// A store here of four bytes, whatever their value, is a hypercall: the host looks into the mailbox.
pub const DOORBELL: Region = Region::new(0x0010_0000, PAGE_BYTES);
/// The exception stubs store the faulting address here.
pub const FAULT_DOORBELL: Region = Region::new(DOORBELL.end, PAGE_BYTES);

/// Read-only segments of the kernel image. From 16 MiB on there is RAM in every machine, and nothing else: below that firmware keeps
/// things of its own.
pub const IMAGE: Region = Region::new(0x0100_0000, 6 << 20);

/// RAM that exists in every VM and holds everything with a fixed place.
pub const BASE: Region = Region::new(0x0160_0000, 6 << 20);
/// The kernel's writable segment.
pub const KERNEL_DATA: Region = Region::new(BASE.start, 1 << 20);
/// One page holding a [`crate::boot::BootInfo`]; what follows the first unmapped page after the kernel's data.
pub const BOOT_INFO: Region = Region::new(KERNEL_DATA.end + PAGE_BYTES, PAGE_BYTES);
/// One page holding a [`crate::boot::HostStatus`].
pub const HOST_STATUS: Region = Region::new(BOOT_INFO.end, PAGE_BYTES);
/// The mailbox: a page of header, then the data of requests and answers.
pub const MAILBOX: Region = Region::new(HOST_STATUS.end + PAGE_BYTES, PAGE_BYTES + 256 * 1024);
/// Where the data of requests and answers lies in the mailbox.
pub const MAILBOX_DATA: Region = Region::new(MAILBOX.start + PAGE_BYTES, MAILBOX.bytes() - PAGE_BYTES);
/// One page whose first eight bytes are the head of the output ring.
pub const RING_HEAD: Region = Region::new(MAILBOX.end + PAGE_BYTES, PAGE_BYTES);
/// The bytes of the output ring.
pub const RING_DATA: Region = Region::new(RING_HEAD.end, 256 * 1024);
/// Arguments, environment and the name of the entry: see [`crate::boot::BootInfo`].
pub const CONFIG: Region = Region::new(RING_DATA.end + PAGE_BYTES, 1 << 20);
/// The kernel's stack; the pages before and after it stay unmapped.
pub const STACK: Region = Region::new(CONFIG.end + PAGE_BYTES, 1152 * 1024);
/// What the kernel tells of itself without a hypercall: see [`crate::announce`].
pub const ANNOUNCED: Region = Region::new(STACK.end + PAGE_BYTES, PAGE_BYTES + 16 * LINEAR_SLOTS);

/// Where the host puts what it reads ahead of files, in windows: see [`crate::hypercall::files::buffer`].
pub const READ_AHEAD: Region = Region { start: BASE.start + (4 << 20), end: BASE.end };

/// Descriptor tables, ring-0 stubs with their stack, page tables. Ring 3 has no access here, and can only read it in
/// [`SYSTEM_VIEW`].
pub const SYSTEM: Region = Region::new(BASE.end, CHUNK_BYTES);
/// Global descriptor table.
pub const GDT: Region = Region::new(SYSTEM.start, PAGE_BYTES);
/// Interrupt descriptor table.
pub const IDT: Region = Region::new(GDT.end, PAGE_BYTES);
/// Task state segment.
pub const TSS: Region = Region::new(IDT.end, PAGE_BYTES);
/// Exception stubs.
pub const STUBS: Region = Region::new(TSS.end, PAGE_BYTES);
/// Stack of the exception stubs.
pub const RING0_STACK: Region = Region::new(STUBS.end, PAGE_BYTES);
/// Page tables, the root first.
pub const PAGE_TABLES: Region = Region { start: RING0_STACK.end, end: SYSTEM.end };

/// The module file.
pub const MODULE: Region = Region::new(0x1000_0000, 2 << 30);

/// The archive of a ramdisk.
pub const RAMDISK: Region = Region::new(MODULE.end, 3 << 29);

/// The first part of the RAM pool, as far as there is RAM for it.
pub const POOL_NEAR: Region = Region::new(SYSTEM.end, 34 << 20);
/// The rest of the RAM pool; guest-physical addresses stay below 2^36, which every x86-64 processor has.
pub const POOL_FAR: Region = Region { start: 0x1_0000_0000, end: 1 << 36 };
/// Where the monitor works that takes the place of the VMM on a machine without: memory that ring 3 has no access to. Under the VMM
/// there is only the pool.
pub const MONITOR: Region = Region::new(POOL_NEAR.start, 1 << 20);
/// Page tables for the way into long mode: root, pointers, four directories.
pub const MONITOR_TABLES: Region = Region::new(MONITOR.start, 6 * PAGE_BYTES);
/// Its stack; the page below is not mapped once the kernel runs.
pub const MONITOR_STACK: Region = Region::new(MONITOR_TABLES.end + PAGE_BYTES, 64 * 1024);
/// All that it knows.
pub const MONITOR_STATE: Region = Region { start: MONITOR_STACK.end, end: MONITOR.end };
/// Where the monitor can write [`BASE`] and [`SYSTEM`], all of which is read-only or nothing for ring 3 at its own address.
pub const MONITOR_VIEW: Region = Region::new(0x0500_0000_0000 + BASE.start, BASE.bytes() + SYSTEM.bytes());

/// Largest pool, both parts together.
pub const MAX_POOL_BYTES: u64 = POOL_NEAR.bytes() + POOL_FAR.bytes();
/// Least RAM of a VM, pool and base together.
pub const MIN_RAM_BYTES: u64 = 16 << 20;
/// Most RAM of a VM, pool and base together.
pub const MAX_RAM_BYTES: u64 = MAX_POOL_BYTES + BASE.bytes();

/// Demand region of small allocations.
pub const HEAP: Region = Region::new(0x0100_0000_0000, 1 << 37);
/// Demand region of allocations from 64 KiB to below 2 MiB.
pub const MEDIUM: Region = Region::new(0x0200_0000_0000, 1 << 37);
/// Where ring 3 can read [`SYSTEM`].
pub const SYSTEM_VIEW: Region = Region::new(0x0400_0000_0000, CHUNK_BYTES);
/// Demand region of allocations of 2 MiB and more.
pub const LARGE: Region = Region::new(0x1000_0000_0000, LARGE_SLOT_BYTES * LARGE_SLOTS);
/// Address space of one large allocation: more than any pool, so that it can always grow where it is.
pub const LARGE_SLOT_BYTES: u64 = 1 << 37;
/// How many large allocations can live at once.
pub const LARGE_SLOTS: u64 = 256;

/// Where the kernel of compiled code reserves address space: linear memories and what guards them. The host maps RAM only inside
/// of what the kernel announced ([`crate::announce`]), to the byte of a small page.
pub const LINEAR: Region = Region::new(0x4000_0000_0000, LINEAR_SLOT_BYTES * LINEAR_SLOTS);
/// Address space of one reservation, which may take several in a row.
pub const LINEAR_SLOT_BYTES: u64 = 1 << 33;
/// How many reservations can be made in the life of a VM.
pub const LINEAR_SLOTS: u64 = 4096;

/// Whether the host maps RAM at `address` when it is touched.
pub const fn is_demand(address: u64) -> bool {
    HEAP.contains(address) || MEDIUM.contains(address) || LARGE.contains(address)
}

const _: () = {
    assert!(FAULT_DOORBELL.end <= IMAGE.start && IMAGE.end <= BASE.start && ANNOUNCED.end < READ_AHEAD.start);
    assert!(POOL_NEAR.end <= MODULE.start && RAMDISK.start.is_multiple_of(CHUNK_BYTES));
    // Interrupt controllers lie below 4 GiB.
    assert!(RAMDISK.end <= 0xfec0_0000 && RAMDISK.end <= POOL_FAR.start);
    assert!(IMAGE.start.is_multiple_of(CHUNK_BYTES) && BASE.start.is_multiple_of(CHUNK_BYTES));
    assert!(POOL_NEAR.start.is_multiple_of(CHUNK_BYTES) && POOL_FAR.start.is_multiple_of(CHUNK_BYTES));
    assert!(MODULE.start.is_multiple_of(CHUNK_BYTES) && MIN_RAM_BYTES > BASE.bytes() + 4 * CHUNK_BYTES);
    assert!(MAX_POOL_BYTES < HEAP.bytes() && MAX_POOL_BYTES < MEDIUM.bytes() && MAX_POOL_BYTES < LARGE_SLOT_BYTES);
    assert!(HEAP.end <= MEDIUM.start && MEDIUM.end <= SYSTEM_VIEW.start && SYSTEM_VIEW.end <= LARGE.start);
    assert!(SYSTEM_VIEW.end <= MONITOR_VIEW.start && MONITOR_VIEW.end <= LARGE.start && MONITOR_STATE.start < MONITOR_STATE.end);
    assert!(SYSTEM.start.is_multiple_of(CHUNK_BYTES) && SYSTEM.bytes() == CHUNK_BYTES && LARGE.end <= LINEAR.start);
    assert!(
        LINEAR.end <= 1 << 47 && LINEAR.start.is_multiple_of(LINEAR_SLOT_BYTES) && LINEAR_SLOT_BYTES.is_multiple_of(CHUNK_BYTES)
    );
    // Tables for as much RAM as there can be, all large slots in use: a directory for each gigabyte and each slot, a
    // pointer table for each half terabyte, and what the fixed part needs.
    assert!(PAGE_TABLES.bytes() / PAGE_BYTES > MAX_POOL_BYTES / (1 << 30) + LARGE_SLOTS + LARGE.bytes() / (1 << 39) + 32);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_do_not_overflow() {
        assert!(HEAP.contains_range(HEAP.start, HEAP.bytes()));
        assert!(!HEAP.contains_range(HEAP.start, u64::MAX));
        assert!(!HEAP.contains_range(u64::MAX, 2));
        assert!(!HEAP.contains_range(HEAP.end - 1, 2));
    }

    #[test]
    fn demand_regions_are_disjoint_from_all_else() {
        for region in [IMAGE, BASE, SYSTEM, POOL_NEAR, POOL_FAR, MODULE, RAMDISK, DOORBELL, FAULT_DOORBELL] {
            assert!(!is_demand(region.start) && !is_demand(region.end - 1));
        }
    }
}
