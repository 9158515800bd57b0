//! Images of guest RAM: what a snapshot keeps, what sandboxes made from it share, and what a restore goes back to.
//!
//! An image is a list of segments, each a part of a file, usually one in memory. A guest maps them privately, so that it shares
//! every page that it does not write. An image that is taken of a guest with an image holds only what differs, and refers to
//! the other's files for the rest: segments are flat, however long the chain of snapshots is.
//!
//! A restore copies back what was written. A page that a guest wrote once stays its own, present and mapped: writing it
//! again costs nothing, which a page that was given up would (some 25 µs on the machines this was measured on, against 0.1 µs
//! for comparing and copying it). So pages are only given up where a guest keeps many that it no longer writes.
//! `docs/snapshots.md` has the figures.

use std::{collections::BTreeMap, io, ops::Range, sync::Arc};

use mote_abi::layout::PAGE_BYTES;

use crate::{
    guest_ram::{GuestRam, Place},
    memory::{Backing, MemoryError, PAGE, Source, ZERO_PAGE},
    pagemap::PageMap,
};

/// Pages between two ranges that are taken into one segment, if they hold nothing but zeros. A copy that writes one makes it a
/// page of the file, once for all copies; a segment more would cost each of them a mapping.
const MAX_GAP_PAGES: u64 = 1024;
/// More segments than this are made into one image of its own: each is a mapping in each sandbox.
const MAX_SEGMENTS: usize = 256;
/// A guest may keep as many pages of its own, whether it writes them or not.
const KEPT_PAGES: u64 = 256;
/// Beyond that a page is given up when it was found unchanged as many times in a row.
const MAX_IDLE_RESTORES: u8 = 4;

/// RAM as it was. What lies in no segment is zeros.
#[derive(Debug)]
pub(crate) struct RamImage {
    /// By guest-physical address; they do not overlap.
    segments: Vec<Segment>,
}

/// A part of an image.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    /// Guest-physical address.
    pub(crate) start: u64,
    pub(crate) bytes: u64,
    pub(crate) backing: Arc<Backing>,
    /// Offset in the file.
    pub(crate) from: u64,
}

/// What a restore did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Restored {
    /// Pages that had changed and were copied back.
    pub(crate) copied_pages: u64,
    /// Pages that were given up.
    pub(crate) dropped_pages: u64,
    /// Pages that the guest had of its own.
    pub(crate) private_pages: u64,
    /// Guest-physical address behind the last of them.
    pub(crate) private_end: u64,
}

/// How often each page of a guest was found unchanged: for each region, by its first address, one number for each page.
#[derive(Debug, Default)]
pub(crate) struct Idle(BTreeMap<u64, Vec<u8>>);

impl Segment {
    fn end(&self) -> u64 {
        self.start + self.bytes
    }

    /// The part of it that lies in a range.
    pub(crate) fn part(&self, range: &Range<u64>) -> Option<Self> {
        let (start, end) = (self.start.max(range.start), self.end().min(range.end));
        (start < end).then(|| Self {
            start,
            bytes: end - start,
            backing: Arc::clone(&self.backing),
            from: self.from + (start - self.start),
        })
    }
}

impl RamImage {
    /// An image of these segments, which are sorted and do not overlap.
    pub(crate) fn new(segments: Vec<Segment>) -> Self {
        Self { segments }
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Takes an image of the RAM in `regions`, of a guest that has `base` or nothing below what it wrote.
    pub(crate) fn capture(
        ram: &GuestRam,
        page_map: &PageMap,
        regions: &[Range<u64>],
        base: Option<&Self>,
    ) -> Result<Self, MemoryError> {
        let mut changed = Vec::new();
        for region in regions {
            for range in private(ram, page_map, region)? {
                for page in pages(range) {
                    if !Self::is_unchanged(ram, base, page)? {
                        push(&mut changed, page..page + PAGE_BYTES, 0);
                    }
                }
            }
        }
        let below = base.map_or(&[][..], |base| &base.segments);
        let whole = below.len() + changed.len() > MAX_SEGMENTS;
        if below.is_empty() || whole {
            let kept = below.iter().filter(|_| whole).map(|segment| segment.start..segment.end());
            let mut all: Vec<_> = changed.into_iter().chain(kept).collect();
            all.sort_by_key(|range| range.start);
            return Ok(Self { segments: save(ram, &all, gap_bytes(&all))? });
        }
        Ok(Self { segments: overlay(below, save(ram, &changed, 0)?) })
    }

    /// Whether a page holds what it does in `base`, or zeros without one.
    fn is_unchanged(ram: &GuestRam, base: Option<&Self>, page: u64) -> Result<bool, MemoryError> {
        let place = place(ram, page, PAGE_BYTES)?;
        let Some(base) = base else { return Ok(place.mapping.is_zero(place.offset, PAGE_BYTES)) };
        // An image of a file is not read for this: the page is kept, which is never wrong.
        match base.segment(page) {
            Some(Segment { start, backing, from, .. }) => Ok(match &backing.view {
                Some(view) => place.mapping.equals(place.offset, PAGE_BYTES, view, from + (page - start)),
                None => false,
            }),
            None => Ok(place.mapping.is_zero(place.offset, PAGE_BYTES)),
        }
    }

    fn segment(&self, address: u64) -> Option<&Segment> {
        let next = self.segments.partition_point(|segment| segment.start <= address);
        self.segments.get(next.checked_sub(1)?).filter(|segment| address < segment.end())
    }

    /// Puts the image into RAM of which nothing is touched yet, or which was cleared.
    pub(crate) fn map_into(&self, ram: &GuestRam) -> Result<(), MemoryError> {
        self.segments.iter().try_for_each(|segment| {
            let place = place(ram, segment.start, segment.bytes)?;
            place.mapping.overlay(place.offset, segment.bytes, &segment.backing, segment.from)
        })
    }

    /// Makes RAM that has this image below what the guest wrote equal to it.
    pub(crate) fn restore(
        &self,
        ram: &GuestRam,
        page_map: &PageMap,
        regions: &[Range<u64>],
        idle: &mut Idle,
    ) -> Result<Restored, MemoryError> {
        let mut restored = Restored::default();
        let mut unused: Vec<Range<u64>> = Vec::new();
        for region in regions {
            let ages = idle.0.entry(region.start).or_default();
            let private = private(ram, page_map, region)?;
            restored.private_end = private.last().map_or(restored.private_end, |range| range.end);
            restored.private_pages += private.iter().map(|range| (range.end - range.start) / PAGE_BYTES).sum::<u64>();
            for page in private.into_iter().flat_map(pages) {
                let differs = self.restore_page(ram, page)?;
                restored.copied_pages += u64::from(differs);
                let index = usize::try_from((page - region.start) / PAGE_BYTES).unwrap_or(usize::MAX);
                if ages.len() <= index {
                    ages.resize(index + 1, 0);
                }
                let Some(age) = ages.get_mut(index) else { continue };
                *age = if differs { 0 } else { age.saturating_add(1) };
                if *age >= MAX_IDLE_RESTORES {
                    push(&mut unused, page..page + PAGE_BYTES, 0);
                }
            }
        }
        if restored.private_pages > KEPT_PAGES {
            for range in unused {
                let bytes = range.end - range.start;
                let place = place(ram, range.start, bytes)?;
                place.mapping.drop_pages(place.offset, bytes).map_err(|source| failed(bytes, source))?;
                restored.dropped_pages += bytes / PAGE_BYTES;
            }
        }
        Ok(restored)
    }

    /// Makes one page equal to what it was; whether it was not.
    fn restore_page(&self, ram: &GuestRam, page: u64) -> Result<bool, MemoryError> {
        let place = place(ram, page, PAGE_BYTES)?;
        let source = match self.segment(page) {
            None => Source::Bytes(&ZERO_PAGE),
            Some(Segment { start, backing, from, .. }) => match &backing.view {
                Some(view) => Source::Mapping(view, from + (page - start)),
                // A file that is cut short while it is in use must be an error, and not a signal.
                None => {
                    let mut buffer = ZERO_PAGE;
                    let read = std::os::unix::fs::FileExt::read_exact_at(&backing.file, &mut buffer, from + (page - start));
                    read.map_err(|source| failed(PAGE_BYTES, source))?;
                    let made = place.mapping.make_equal_carefully(place.offset, &buffer);
                    return made.map_err(|source| failed(PAGE_BYTES, source));
                }
            },
        };
        place.mapping.make_equal(place.offset, PAGE_BYTES, source).ok_or_else(|| outside(page))
    }
}

impl Idle {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// The ranges of guest-physical addresses in these regions that are the guest's own.
pub(crate) fn written(ram: &GuestRam, page_map: &PageMap, regions: &[Range<u64>]) -> Result<Vec<Range<u64>>, MemoryError> {
    let mut all = Vec::new();
    for region in regions {
        all.extend(private(ram, page_map, region)?);
    }
    Ok(all)
}

/// The ranges of guest-physical addresses in a region that are the guest's own.
fn private(ram: &GuestRam, page_map: &PageMap, region: &Range<u64>) -> Result<Vec<Range<u64>>, MemoryError> {
    let bytes = region.end - region.start;
    if bytes == 0 {
        return Ok(Vec::new());
    }
    let place = place(ram, region.start, bytes)?;
    let first = place.mapping.host_address() + place.offset;
    let found = page_map.private_pages(first..first + bytes).map_err(|source| failed(bytes, source))?;
    let to_guest = |address: u64| region.start + (address - first);
    Ok(found.into_iter().map(|range| to_guest(range.start)..to_guest(range.end)).collect())
}

fn place(ram: &GuestRam, start: u64, bytes: u64) -> Result<Place<'_>, MemoryError> {
    ram.place(start, bytes).ok_or_else(|| outside(start))
}

fn outside(address: u64) -> MemoryError {
    MemoryError::Layout(format!("{address:#x} is no RAM"))
}

fn failed(bytes: u64, source: io::Error) -> MemoryError {
    MemoryError::Map { what: "a snapshot", bytes, source }
}

fn pages(range: Range<u64>) -> impl Iterator<Item = u64> {
    range.step_by(PAGE)
}

/// Adds a range, as part of the last one if the gap between both is at most `max_gap_bytes`.
fn push(ranges: &mut Vec<Range<u64>>, range: Range<u64>, max_gap_bytes: u64) {
    match ranges.last_mut() {
        Some(last) if range.start <= last.end.saturating_add(max_gap_bytes) => last.end = last.end.max(range.end),
        _ => ranges.push(range),
    }
}

/// Which gaps to close between these ranges, so that there are no more than [`MAX_SEGMENTS`].
fn gap_bytes(ranges: &[Range<u64>]) -> u64 {
    // With gaps of this size closed few segments have room in any RAM, and its two parts still lie further from each other.
    const LARGEST: u64 = 512 << 20;
    let gaps = |least: u64| {
        ranges.windows(2).filter(|pair| matches!(pair, [one, next] if next.start > one.end.saturating_add(least))).count()
    };
    let mut bytes = MAX_GAP_PAGES * PAGE_BYTES;
    while bytes < LARGEST && gaps(bytes) >= MAX_SEGMENTS {
        bytes *= 2;
    }
    bytes
}

/// Copies these ranges into a new file in memory. Ranges that lie close together become one segment, in which what is between
/// them is zeros.
fn save(ram: &GuestRam, ranges: &[Range<u64>], max_gap_bytes: u64) -> Result<Vec<Segment>, MemoryError> {
    let mut runs = Vec::new();
    for range in ranges {
        push(&mut runs, range.clone(), max_gap_bytes);
    }
    let bytes = runs.iter().map(|run| run.end - run.start).sum();
    if bytes == 0 {
        return Ok(Vec::new());
    }
    let backing = Backing::in_memory("a snapshot", bytes)?;
    let mut offsets = Vec::with_capacity(runs.len());
    let mut next = 0;
    for run in &runs {
        offsets.push(next);
        next += run.end - run.start;
    }
    for range in ranges {
        let index = runs.partition_point(|run| run.start <= range.start).saturating_sub(1);
        let (Some(run), Some(offset)) = (runs.get(index), offsets.get(index)) else { continue };
        let bytes = range.end - range.start;
        let place = place(ram, range.start, bytes)?;
        let at = offset + (range.start - run.start);
        place
            .mapping
            .save(place.offset, bytes, std::os::fd::AsFd::as_fd(&backing.file), at)
            .map_err(|source| failed(bytes, source))?;
    }
    let backing = Arc::new(backing.seal()?);
    let segment = |(run, from): (Range<u64>, u64)| Segment {
        start: run.start,
        bytes: run.end - run.start,
        backing: Arc::clone(&backing),
        from,
    };
    Ok(runs.into_iter().zip(offsets).map(segment).collect())
}

/// Puts segments in the place of what lies there in others.
fn overlay(below: &[Segment], above: Vec<Segment>) -> Vec<Segment> {
    let mut all = Vec::with_capacity(below.len() + 2 * above.len());
    for segment in below {
        let mut start = segment.start;
        for over in above.iter().filter(|over| over.start < segment.end() && segment.start < over.end()) {
            all.extend(segment.part(&(start..over.start)));
            start = start.max(over.end());
        }
        all.extend(segment.part(&(start..segment.end())));
    }
    all.extend(above);
    all.sort_by_key(|segment| segment.start);
    all
}

#[cfg(test)]
mod tests;
