//! Which parts of which files lie in the read-ahead windows that kernel and host share.
//!
//! Only bookkeeping: the bytes are elsewhere. What was read is good until the guest changes the file; until it learns anything
//! else of the world outside, as others may have changed the file before they said so; and for a second at most, or a
//! twentieth of that for where the file ends.

/// A file on the host, whatever names and descriptors it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId {
    /// Device.
    pub device: u64,
    /// Inode.
    pub inode: u64,
}

/// How long the bytes of a file may be used, in nanoseconds: nobody could tell, but for a look at the clock.
const MAX_AGE_NS: u64 = 1_000_000_000;
/// How long its size may: a program may wait for a file to grow by reading alone.
const MAX_SIZE_AGE_NS: u64 = 50_000_000;

/// When the guest learned something of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Monotonic time in nanoseconds.
    pub ns: u64,
    /// How many answers of the host that may tell of the world outside came before.
    pub tidings: u64,
}

impl Moment {
    /// Whether bytes that were read then may still be taken for those of the file at `now`.
    fn has_bytes(self, now: Self) -> bool {
        self.tidings == now.tidings && now.ns.saturating_sub(self.ns) <= MAX_AGE_NS
    }

    /// Whether size and times that were learned then may still be taken for true at `now`.
    pub fn has_size(self, now: Self) -> bool {
        self.has_bytes(now) && now.ns.saturating_sub(self.ns) <= MAX_SIZE_AGE_NS
    }
}

/// What a window holds.
#[derive(Debug, Clone, Copy)]
struct Window {
    file: FileId,
    offset: u64,
    bytes: u64,
    /// Whether the file ended behind those bytes.
    at_end: bool,
    filled: Moment,
    /// Larger for one that was used later.
    used: u64,
}

/// Bytes of a file that are in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// Index of the window.
    pub window: usize,
    /// Where in it they start.
    pub start: u64,
    /// How many there are; 0 only at the end of the file.
    pub bytes: u64,
    /// Whether the file ends behind them.
    pub at_end: bool,
}

/// The windows.
#[derive(Debug)]
pub struct Windows<const COUNT: usize> {
    windows: [Option<Window>; COUNT],
    uses: u64,
}

impl<const COUNT: usize> Default for Windows<COUNT> {
    fn default() -> Self {
        Self { windows: [None; COUNT], uses: 0 }
    }
}

impl<const COUNT: usize> Windows<COUNT> {
    /// What is there of `file` from `offset` on; `None` if the host must be asked.
    pub fn find(&mut self, file: FileId, offset: u64, now: Moment) -> Option<Hit> {
        self.uses += 1;
        for (index, entry) in self.windows.iter_mut().enumerate() {
            let Some(window) = entry.as_mut().filter(|window| window.file == file) else { continue };
            if !window.filled.has_bytes(now) {
                *entry = None;
                continue;
            }
            let end = window.offset.saturating_add(window.bytes);
            let inside = window.offset <= offset && offset < end;
            let at_end = window.at_end && window.filled.has_size(now);
            let behind = at_end && offset >= end;
            if inside || behind {
                window.used = self.uses;
                let start = offset.saturating_sub(window.offset).min(window.bytes);
                return Some(Hit { window: index, start, bytes: window.bytes - start, at_end });
            }
        }
        None
    }

    /// Index of the window to be filled for `file`: one that it has, one that is free, or that which was not used for longest.
    pub fn victim(&mut self, file: FileId) -> usize {
        self.take(|window| if window.file == file { (0, 0) } else { (2, window.used) })
    }

    /// The same for a file that is not known yet.
    pub fn spare(&mut self) -> usize {
        self.take(|window| (2, window.used))
    }

    fn take(&mut self, rank: impl Fn(&Window) -> (u32, u64)) -> usize {
        let rank = |window: &Option<Window>| window.as_ref().map_or((1, 0), &rank);
        let victim = self.windows.iter().enumerate().min_by_key(|(_, window)| rank(window));
        let index = victim.map_or(0, |(index, _)| index);
        if let Some(window) = self.windows.get_mut(index) {
            *window = None;
        }
        index
    }

    /// Window `index` has been filled with `bytes` bytes of `file` from `offset` on.
    pub fn fill(&mut self, index: usize, file: FileId, offset: u64, bytes: u64, at_end: bool, now: Moment) {
        self.uses += 1;
        if let Some(window) = self.windows.get_mut(index) {
            *window = Some(Window { file, offset, bytes, at_end, filled: now, used: self.uses });
        }
    }

    /// The guest changes `file`.
    pub fn forget(&mut self, file: FileId) {
        for window in &mut self.windows {
            if window.is_some_and(|window| window.file == file) {
                *window = None;
            }
        }
    }
}

/// How far one descriptor is read ahead: twice as far each time, as long as it is read on where it stopped.
#[derive(Debug, Clone, Copy)]
pub struct Ahead {
    next_offset: u64,
    bytes: u64,
}

impl Ahead {
    /// What the first read of a file brings at least.
    pub const FIRST_BYTES: u64 = 32 << 10;
    /// What a read brings that does not go on where the last one ended.
    const RANDOM_BYTES: u64 = 4 << 10;

    /// How much is to be fetched at `offset` when `wanted` bytes are asked for and a window has `most`.
    pub fn next(&mut self, offset: u64, wanted: u64, most: u64) -> u64 {
        self.bytes = if self.goes_on(offset) { self.bytes.saturating_mul(2) } else { Self::RANDOM_BYTES };
        self.bytes = self.bytes.max(wanted).min(most);
        self.next_offset = offset.saturating_add(self.bytes);
        self.bytes
    }

    /// Whether a read at `offset` only goes on where the last one ended. Any other may be a look at what has changed.
    pub fn goes_on(&self, offset: u64) -> bool {
        offset == self.next_offset
    }

    /// The first `bytes` bytes were fetched when the file was opened.
    pub fn opened_with(bytes: u64) -> Self {
        Self { next_offset: bytes, bytes: bytes.max(Self::FIRST_BYTES / 2) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const A: FileId = FileId { device: 1, inode: 2 };
    const B: FileId = FileId { device: 1, inode: 3 };

    fn at(ns: u64) -> Moment {
        Moment { ns, tidings: 7 }
    }

    #[test]
    fn what_was_filled_is_found_until_it_is_old_or_changed() {
        let mut windows = Windows::<2>::default();
        assert_eq!(windows.find(A, 0, at(0)), None);
        let index = windows.victim(A);
        windows.fill(index, A, 100, 50, false, at(10));
        assert_eq!(windows.find(A, 120, at(20)), Some(Hit { window: index, start: 20, bytes: 30, at_end: false }));
        assert_eq!(windows.find(A, 99, at(20)), None);
        assert_eq!(windows.find(A, 150, at(20)), None);
        assert_eq!(windows.find(B, 120, at(20)), None);
        windows.forget(B);
        assert!(windows.find(A, 149, at(10 + MAX_AGE_NS)).is_some());
        assert!(windows.find(A, 149, at(11 + MAX_AGE_NS)).is_none());
        windows.fill(index, A, 100, 50, true, at(10));
        assert_eq!(windows.find(A, 150, at(10)), Some(Hit { window: index, start: 50, bytes: 0, at_end: true }));
        assert_eq!(windows.find(A, 900, at(10)).map(|hit| (hit.start, hit.bytes)), Some((50, 0)));
        assert_eq!(windows.find(A, 150, at(11 + MAX_SIZE_AGE_NS)), None);
        assert!(windows.find(A, 149, at(11 + MAX_SIZE_AGE_NS)).is_some_and(|hit| !hit.at_end));
        assert_eq!(windows.find(A, 150, Moment { ns: 10, tidings: 8 }), None);
        windows.fill(index, A, 100, 50, true, at(10));
        windows.forget(A);
        assert_eq!(windows.find(A, 150, at(10)), None);
    }

    #[test]
    fn a_file_keeps_its_window_and_the_oldest_goes() {
        let mut windows = Windows::<2>::default();
        for file in [A, B] {
            let index = windows.victim(file);
            windows.fill(index, file, 0, 10, false, at(0));
        }
        assert!(windows.find(A, 0, at(0)).is_some());
        let c = FileId { device: 9, inode: 9 };
        let index = windows.victim(c);
        windows.fill(index, c, 0, 10, false, at(0));
        assert!(windows.find(A, 0, at(0)).is_some() && windows.find(B, 0, at(0)).is_none());
        assert_eq!([windows.spare(), windows.spare()], [index; 2]);
    }

    #[test]
    fn sequential_reads_go_further_and_random_ones_do_not() {
        let mut ahead = Ahead::opened_with(0);
        assert_eq!(ahead.next(0, 100, 1 << 18), 32 << 10);
        assert_eq!(ahead.next(32 << 10, 100, 1 << 18), 64 << 10);
        assert!(ahead.goes_on(96 << 10) && !ahead.goes_on(0));
        assert_eq!(ahead.next(0, 100, 1 << 18), 4 << 10);
        assert_eq!(ahead.next(9, 1 << 20, 1 << 18), 1 << 18);
    }

    proptest! {
        /// Against a file in memory: whatever the windows say is there is what the file has.
        #[test]
        fn hits_are_true(steps in prop::collection::vec((0u64..3, 0u64..200, 1u64..60, any::<bool>()), 0..60)) {
            const SIZE: u64 = 150;
            let mut windows = Windows::<3>::default();
            let mut bytes: [Vec<u64>; 3] = Default::default();
            for (now, (file, offset, wanted, forget)) in steps.into_iter().enumerate() {
                let id = FileId { device: 0, inode: file };
                if forget {
                    windows.forget(id);
                    prop_assert_eq!(windows.find(id, offset, at(now as u64)), None);
                }
                match windows.find(id, offset, at(now as u64)) {
                    Some(hit) => {
                        let held = &bytes[hit.window][hit.start as usize..][..hit.bytes as usize];
                        let true_bytes = (offset..SIZE).map(|at| file * 1000 + at);
                        prop_assert!(true_bytes.take(held.len()).eq(held.iter().copied()));
                        prop_assert!(hit.bytes > 0 || offset >= SIZE);
                    }
                    None => {
                        let index = windows.victim(id);
                        let held: Vec<u64> = (offset..SIZE.min(offset + wanted)).map(|at| file * 1000 + at).collect();
                        let at_end = (held.len() as u64) < wanted;
                        windows.fill(index, id, offset, held.len() as u64, at_end, at(now as u64));
                        bytes[index] = held;
                    }
                }
            }
        }
    }
}
