//! Whatever a kernel announces and touches: what its page tables have then.

use std::collections::BTreeSet;

use mote_abi::layout::{
    FAULT_DOORBELL, IMAGE, LARGE, LINEAR, LINEAR_SLOT_BYTES, MODULE, PAGE_BYTES, POOL_FAR, POOL_NEAR, SYSTEM, SYSTEM_VIEW,
};
use proptest::prelude::*;

use super::*;
use crate::{
    image::KernelImage,
    kvm,
    module::Module,
    tables::{ModuleSizes, ROOT, Sizes},
};

const RAM_BYTES: u64 = 48 << 20;
/// Bits of page-table entries (AMD64 Architecture Programmer's Manual, volume 2, section 5.4).
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const LARGE_PAGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

struct Guest {
    vm: VmFd,
    ram: GuestRam,
    demand: DemandService,
    _module: PlacedModule,
}

/// One with a module of which some pages are text.
fn guest() -> Guest {
    let kernel = KernelImage::embedded().unwrap();
    let module = Module::from_bytes("m".as_ref(), [&b"\0asm\x01\0\0\0"[..], &[0; 3 << 20]].concat()).unwrap();
    let ram = GuestRam::new(RAM_BYTES).unwrap();
    let text = ModuleSizes { bytes: module.bytes(), text_start: 3 * PAGE_BYTES, text_end: (2 << 20) + PAGE_BYTES };
    let sizes = Sizes { module: text, ramdisk_bytes: 5 << 20, config_bytes: 1 };
    let tables = Tables::build(ram.memory(), &kernel, &sizes).unwrap();
    let vm = kvm::create_vm(&kvm::open().unwrap()).unwrap();
    let placed = PlacedModule::first(&module);
    let slots = Slots::add(&vm, &ram, &kernel, std::slice::from_ref(&placed), None, ram.near.bytes()).unwrap();
    let demand = DemandService::new(tables, slots, &vm, &ram).unwrap();
    Guest { vm, ram, demand, _module: placed }
}

/// A page that ring 3 or ring 0 has.
#[derive(Debug, Clone, Copy)]
struct Page {
    address: u64,
    physical: u64,
    bytes: u64,
    is_user: bool,
    is_writable: bool,
    is_executable: bool,
}

/// All that the tables have, as a processor reads them.
fn pages(ram: &GuestRam) -> Vec<Page> {
    let mut found = Vec::new();
    let rights = (USER | WRITABLE, false);
    walk(ram, ROOT, 4, 0, rights, &mut found);
    found
}

fn walk(ram: &GuestRam, table: u64, level: u32, from: u64, (above, no_execute): (u64, bool), found: &mut Vec<Page>) {
    let entry = |index| ram.memory().read_obj::<u64>(GuestAddress(table + 8 * index)).unwrap();
    for (index, entry) in (0..512).map(|index| (index, entry(index))).filter(|(_, entry)| entry & PRESENT != 0) {
        let bytes = 1 << (12 + 9 * (level - 1));
        let (address, rights) = (from + index * bytes, (above & entry, no_execute || entry & NO_EXECUTE != 0));
        if level > 1 && entry & LARGE_PAGE == 0 {
            assert!(SYSTEM.contains(entry & ADDRESS), "a table at {:#x}", entry & ADDRESS);
            walk(ram, entry & ADDRESS, level - 1, address, rights, found);
            continue;
        }
        let (is_user, is_writable) = (rights.0 & USER != 0, rights.0 & WRITABLE != 0);
        let physical = entry & ADDRESS & !(bytes - 1);
        found.push(Page { address, physical, bytes, is_user, is_writable, is_executable: !rights.1 });
    }
}

/// What has to be true of every guest's tables.
fn check(guest: &Guest, announced: &[Range<u64>]) -> Result<(), TestCaseError> {
    let pool_end = POOL_NEAR.start + guest.ram.pool_bytes.min(POOL_NEAR.bytes());
    let far_end = POOL_FAR.start + guest.ram.pool_bytes - (pool_end - POOL_NEAR.start);
    let is_pool = |page: &Page| {
        let end = page.physical + page.bytes;
        (POOL_NEAR.start <= page.physical && end <= pool_end) || (POOL_FAR.start <= page.physical && end <= far_end)
    };
    let mut used = BTreeSet::new();
    for page in pages(&guest.ram) {
        prop_assert!(!(page.is_writable && page.is_executable), "{page:x?} can be written and executed");
        if LINEAR.contains(page.address) || layout::is_demand(page.address) {
            prop_assert!(
                is_pool(&page) && page.is_user && page.is_writable && !page.is_executable,
                "{page:x?} is no RAM of the pool"
            );
            prop_assert!(
                (page.physical..page.physical + page.bytes).step_by(4096).all(|at| used.insert(at)),
                "{page:x?} is there twice"
            );
        } else {
            prop_assert!(!is_pool(&page), "{page:x?} is RAM of the pool");
            let is_text = IMAGE.contains(page.address) || MODULE.contains(page.address);
            prop_assert!(!page.is_user || !page.is_executable || (is_text && !page.is_writable), "{page:x?} can be executed");
        }
        let is_private = SYSTEM.contains(page.address) || FAULT_DOORBELL.contains(page.address);
        prop_assert!(!(is_private && page.is_user), "{page:x?} is ring 0's");
        if SYSTEM.contains(page.physical) && page.is_user {
            prop_assert!(SYSTEM_VIEW.contains(page.address) && !page.is_writable, "{page:x?} is in the system area");
        }
        if LINEAR.contains(page.address) {
            let end = page.address + page.bytes;
            prop_assert!(
                announced.iter().any(|range| range.start <= page.address && end <= range.end),
                "{page:x?} was not announced"
            );
        }
    }
    Ok(())
}

/// Few slots, and few places in them, so that ranges meet.
fn address() -> impl Strategy<Value = u64> {
    let slot = prop::sample::select(vec![0, 1, 2, LINEAR.bytes() / LINEAR_SLOT_BYTES - 1]);
    let offset = prop_oneof![
        0..6 * PAGE_BYTES,
        (0..4 * CHUNK_BYTES),
        (0u64..5).prop_map(|chunk| chunk * CHUNK_BYTES),
        Just(LINEAR_SLOT_BYTES - PAGE_BYTES),
        Just(LINEAR_SLOT_BYTES - 1),
    ];
    (slot, offset).prop_map(|(slot, offset)| LINEAR.start + slot * LINEAR_SLOT_BYTES + offset)
}

fn bound() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => address().prop_map(|address| address / PAGE_BYTES * PAGE_BYTES),
        1 => address(),
        1 => any::<u64>(),
        1 => prop::sample::select(vec![0, u64::MAX, IMAGE.start, MODULE.start, SYSTEM.start, LINEAR.start, LINEAR.end, LARGE.start]),
    ]
}

#[derive(Debug, Clone)]
enum Step {
    Announce { at: u64, start: u64, end: u64 },
    Touch { address: u64, error_code: u64 },
    Other { address: u64 },
}

/// As ring 3 does it.
fn touch() -> impl Strategy<Value = Step> {
    (address(), prop::sample::select(vec![4, 6])).prop_map(|(address, error_code)| Step::Touch { address, error_code })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (address(), bound(), bound()).prop_map(|(at, start, end)| Step::Announce {
            at,
            start: start.min(end),
            end: start.max(end)
        }),
        (address(), bound(), bound()).prop_map(|(at, start, end)| Step::Announce { at, start, end }),
        // As a kernel does: something that begins in the slot that it is about.
        (address(), 0u64..2000).prop_map(|(at, pages)| {
            let start = at / PAGE_BYTES * PAGE_BYTES;
            Step::Announce { at, start, end: start + pages * PAGE_BYTES }
        }),
        touch(),
        touch(),
        touch(),
        (address(), 0u64..32).prop_map(|(address, error_code)| Step::Touch { address, error_code }),
        prop_oneof![any::<u64>(), bound(), Just(HEAP.start + (7 << 30)), Just(LARGE.end - 1), Just(MEDIUM.start)]
            .prop_map(|address| Step::Other { address }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn nothing_that_is_announced_opens_more_than_ram(steps in prop::collection::vec(step(), 1..40)) {
        if kvm::open().is_err() {
            return Ok(());
        }
        let mut guest = guest();
        let mut announced: Vec<Range<u64>> = Vec::new();
        check(&guest, &announced)?;
        let frame = |error_code| Frame { rax: 0, vector: PAGE_FAULT, error_code, rip: 0, cs: 3, rflags: 0, rsp: 0, ss: 3 };
        for step in steps {
            let (address, error_code) = match step {
                Step::Announce { at, start, end } => {
                    let place = announce::committed_at(at).unwrap();
                    guest.ram.memory().write_obj([start, end], GuestAddress(place)).unwrap();
                    let slot = at / LINEAR_SLOT_BYTES * LINEAR_SLOT_BYTES;
                    // An announcement of another slot is none.
                    if slot <= start && end <= slot + LINEAR_SLOT_BYTES {
                        announced.push(start..end);
                    }
                    continue;
                }
                Step::Touch { address, error_code } => (address, error_code),
                Step::Other { address } => (address, 6),
            };
            let before = guest.demand.slots.free_chunks();
            let resolution = guest.demand.resolve(&guest.vm, &guest.ram, &frame(error_code), address);
            let resolution = resolution.map_err(|error| TestCaseError::fail(format!("the host failed: {error}")))?;
            let used = before - guest.demand.slots.free_chunks();
            prop_assert!(used <= 1, "{used} chunks for one fault");
            prop_assert!(used == 0 || resolution != Resolution::NotDemand || guest.demand.translate(address).is_some(), "a chunk is lost");
            let is_mapped = pages(&guest.ram).iter().any(|page| (page.address..page.address + page.bytes).contains(&address));
            prop_assert!(resolution != Resolution::Mapped || is_mapped, "{address:#x} is not mapped");
            if resolution == Resolution::Exhausted {
                break;
            }
        }
        check(&guest, &announced)?;
    }
}
