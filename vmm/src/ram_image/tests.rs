use super::*;
use mote_abi::layout::{BASE, POOL_FAR, POOL_NEAR};
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

const RAM_BYTES: u64 = 64 << 20;
/// Three regions of sixteen pages each.
const STARTS: [u64; 3] = [BASE.start, POOL_NEAR.start, POOL_FAR.start];
const PAGES: u64 = 16;

fn regions() -> Vec<Range<u64>> {
    STARTS.iter().map(|start| *start..start + PAGES * PAGE_BYTES).collect()
}

fn contents(ram: &GuestRam) -> Vec<u8> {
    let mut all = Vec::new();
    for region in regions() {
        let mut bytes = vec![0; usize::try_from(region.end - region.start).unwrap()];
        ram.memory().read_slice(&mut bytes, GuestAddress(region.start)).unwrap();
        all.extend(bytes);
    }
    all
}

/// A page of one of the regions, and what is written there.
fn write(ram: &GuestRam, (page, value): (u64, u8)) {
    let page = page % (3 * PAGES);
    let address = STARTS[(page / PAGES) as usize] + page % PAGES * PAGE_BYTES + 8 * u64::from(value);
    ram.memory().write_obj(value, GuestAddress(address)).unwrap();
}

type Writes = Vec<(u64, u8)>;

fn writes() -> impl Strategy<Value = Writes> {
    prop::collection::vec(any::<(u64, u8)>(), 0..24)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Snapshots of snapshots, restores in any order, and copies all hold what was there when they were taken.
    #[test]
    fn every_image_gives_back_what_it_was_taken_of(steps in prop::collection::vec((writes(), any::<bool>(), any::<prop::sample::Index>()), 1..8)) {
        let page_map = PageMap::open().unwrap();
        let ram = GuestRam::new(RAM_BYTES).unwrap();
        let mut idle = Idle::default();
        let mut taken: Vec<(Arc<RamImage>, Vec<u8>)> = Vec::new();
        let mut base: Option<Arc<RamImage>> = None;
        for (writes, take, which) in steps {
            writes.iter().for_each(|one| write(&ram, *one));
            if take || taken.is_empty() {
                let expected = contents(&ram);
                let image = Arc::new(RamImage::capture(&ram, &page_map, &regions(), base.as_deref()).unwrap());
                image.map_into(&ram).unwrap();
                prop_assert!(contents(&ram) == expected, "taking an image changed memory");
                taken.push((Arc::clone(&image), expected));
                base = Some(image);
            } else if let Some(image) = &base {
                image.restore(&ram, &page_map, &regions(), &mut idle).unwrap();
                let (_, expected) = taken.iter().rev().find(|(one, _)| Arc::ptr_eq(one, image)).unwrap();
                prop_assert!(&contents(&ram) == expected, "a restore did not bring memory back");
            }
            let (image, expected) = which.get(&taken);
            let copy = GuestRam::new(RAM_BYTES).unwrap();
            image.map_into(&copy).unwrap();
            prop_assert!(&contents(&copy) == expected, "a copy has something else");
        }
    }

    #[test]
    fn an_overlay_is_what_it_says_at_each_address(below in prop::collection::vec((0u64..40, 1u64..6), 0..6), above in prop::collection::vec((0u64..40, 1u64..6), 0..6)) {
        let backing = Arc::new(Backing::from_bytes("test", &[0; 4096]).unwrap());
        // Disjoint segments; where each comes from tells which it is.
        let disjoint = |parts: Vec<(u64, u64)>, mark: u64| {
            let mut segments: Vec<Segment> = Vec::new();
            for (gap, bytes) in parts {
                let start = segments.last().map_or(0, Segment::end) + gap;
                segments.push(Segment { start, bytes, backing: Arc::clone(&backing), from: mark + start });
            }
            segments
        };
        let (below, above) = (disjoint(below, 1000), disjoint(above, 2000));
        let at = |segments: &[Segment], address: u64| {
            let mut found = segments.iter().filter(|segment| (segment.start..segment.end()).contains(&address));
            let first = found.next().map(|segment| segment.from + (address - segment.start));
            assert!(found.next().is_none(), "two segments at {address}");
            first
        };
        let merged = overlay(&below, above.clone());
        for address in 0..400 {
            prop_assert_eq!(at(&merged, address), at(&above, address).or(at(&below, address)));
        }
    }
}

#[test]
fn an_image_has_few_segments_however_memory_was_written() {
    const STEP_BYTES: usize = 256 << 10;
    let page_map = PageMap::open().unwrap();
    let (ram, copy) = (GuestRam::new(1 << 30).unwrap(), GuestRam::new(1 << 30).unwrap());
    let regions = [BASE.start..POOL_NEAR.end, POOL_FAR.start..POOL_FAR.start + (900 << 20)];
    let written = || regions.iter().flat_map(|region| region.clone().step_by(STEP_BYTES));
    written().for_each(|at| ram.memory().write_obj(at, GuestAddress(at)).unwrap());
    assert!(written().count() > 10 * MAX_SEGMENTS);
    let image = RamImage::capture(&ram, &page_map, &regions, None).unwrap();
    assert!(image.segments().len() <= MAX_SEGMENTS, "{}", image.segments().len());
    image.map_into(&copy).unwrap();
    for at in written() {
        assert_eq!(copy.memory().read_obj::<u64>(GuestAddress(at)).unwrap(), at);
        assert_eq!(copy.memory().read_obj::<u64>(GuestAddress(at + PAGE_BYTES)).unwrap(), 0);
    }
}

#[test]
fn pages_that_are_no_longer_written_are_given_up_where_there_are_many() {
    let page_map = PageMap::open().unwrap();
    let ram = GuestRam::new(RAM_BYTES).unwrap();
    let region = [POOL_NEAR.start, POOL_NEAR.start + 512 * PAGE_BYTES].map(|start| start..start + 512 * PAGE_BYTES);
    let image = RamImage::capture(&ram, &page_map, &region, None).unwrap();
    let mut idle = Idle::default();
    for page in 0..1024 {
        ram.memory().write_obj(1u8, GuestAddress(POOL_NEAR.start + page * PAGE_BYTES)).unwrap();
    }
    let mut restore = || image.restore(&ram, &page_map, &region, &mut idle).unwrap();
    let private_end = POOL_NEAR.start + 1024 * PAGE_BYTES;
    assert_eq!(restore(), Restored { copied_pages: 1024, dropped_pages: 0, private_pages: 1024, private_end });
    let dropped: u64 = (0..=MAX_IDLE_RESTORES).map(|_| restore().dropped_pages).sum();
    assert_eq!(dropped, 1024);
    assert_eq!(restore(), Restored::default());
}
