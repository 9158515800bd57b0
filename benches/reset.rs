//! Ways to bring guest memory back to an image, compared: what a cycle of guest and reset costs, the guest's faults included.
//!
//! A bare VM in ring 3 has 64 MiB of RAM that is a private mapping of a sealed image. In each cycle it writes one byte in each of
//! so many pages, exits, and its memory is reset. Cycles of all ways take turns.
//!
//! `cargo bench -p mote-vmm --bench reset`; needs `/dev/kvm` and Linux 6.7 (PAGEMAP_SCAN).

#![expect(clippy::expect_used, reason = "a benchmark that fails has nothing to go on with")]

#[path = "support/bare.rs"]
mod bare;
#[path = "support/rounds.rs"]
mod rounds;

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd, FromRawFd},
        unix::fs::FileExt,
    },
    ptr,
    time::Duration,
};

use bare::{Bare, DIRECTORY, Mode, RAM_BYTES, START, write_tables};
use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, kvm_regs};
use kvm_ioctls::Kvm;
use mote_vmm::open_kvm;
use rounds::{median, micros, time};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap, mmap::MmapRegionBuilder};

const PAGE_BYTES: usize = 4096;
/// What the guest writes begins here, and reaches to the end of RAM at most.
const DATA_START: u64 = 16 << 20;
const DATA_BYTES: usize = RAM_BYTES - (16 << 20);
/// What a guest is taken to use where everything that is in use is copied: what it writes, or this.
const LEAST_USED_PAGES: usize = 256;
const CYCLES: usize = 30;
const CYCLES_BEFORE: usize = 5;

/// `start: mov rcx, rsi; mov rdi, rdx; next: mov [rdi], al; add rdi, 4096; dec rcx; jnz next; mov [rbx], al; jmp start`.
const CODE: [u8; 24] = [
    0x48, 0x89, 0xf1, 0x48, 0x89, 0xd7, 0x88, 0x07, 0x48, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, 0x48, 0xff, 0xc9, 0x75, 0xf2, 0x88,
    0x03, 0xeb, 0xe8,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Pages that are the process's own are found by PAGEMAP_SCAN, compared, and copied back where they differ.
    PageMap,
    /// Pages that KVM logged as written are copied back; it write-protects them again.
    DirtyLog,
    /// All private pages are given up, and come back from the image by faults.
    Refault,
    /// All that is in use is copied back, with nothing tracked.
    CopyUsed,
}

const WAYS: [(Way, &str); 4] = [
    (Way::PageMap, "PAGEMAP_SCAN, compare, copy"),
    (Way::DirtyLog, "KVM dirty log, copy"),
    (Way::Refault, "MADV_DONTNEED, refault"),
    (Way::CopyUsed, "copy all in use, track nothing"),
];

fn main() {
    let kvm = match open_kvm() {
        Ok(kvm) => kvm,
        Err(error) => {
            eprintln!("skipped: {error}");
            return;
        }
    };
    println!(
        "Microseconds, medians of {CYCLES} cycles. Guest: entry, its writes, exit. Of the guest's time an exit alone is part.\n"
    );
    println!("| pages written | way | guest | reset | cycle |\n| ---: | --- | ---: | ---: | ---: |");
    for pages in [1, 16, 256, 4096] {
        let mut subjects: Vec<_> = WAYS.iter().map(|(way, _)| Subject::new(&kvm, *way, pages)).collect();
        let mut all = vec![(Vec::new(), Vec::new(), Vec::new()); subjects.len()];
        for cycle in 0..CYCLES_BEFORE + CYCLES {
            for (subject, (guests, resets, cycles)) in subjects.iter_mut().zip(&mut all) {
                let (guest, reset) = subject.cycle();
                if cycle >= CYCLES_BEFORE {
                    guests.push(micros(guest));
                    resets.push(micros(reset));
                    cycles.push(micros(guest + reset));
                }
            }
        }
        for ((_, name), (guests, resets, cycles)) in WAYS.iter().zip(all) {
            println!("| {pages} | {name} | {:.1} | {:.1} | {:.1} |", median(guests), median(resets), median(cycles));
        }
    }
}

struct Subject {
    way: Way,
    pages: usize,
    guest: Bare,
    /// The image, mapped to be read.
    image: GuestMemoryMmap,
    page_map: File,
}

impl Subject {
    fn new(kvm: &Kvm, way: Way, pages: usize) -> Self {
        let file = image();
        let duplicate = || file.try_clone().expect("a descriptor can be duplicated");
        let guest_memory = map(duplicate(), libc::MAP_PRIVATE);
        let image = map(duplicate(), libc::MAP_SHARED);
        let flags = if way == Way::DirtyLog { KVM_MEM_LOG_DIRTY_PAGES } else { 0 };
        let guest = Bare::with_memory(kvm, Mode::Ring3, guest_memory, flags);
        let registers =
            kvm_regs { rip: START, rflags: 1 << 1, rax: 1, rsi: pages as u64, rdx: DATA_START, ..kvm_regs::default() };
        guest.vcpu.set_regs(&registers).expect("KVM_SET_REGS");
        Self { way, pages, guest, image, page_map: File::open("/proc/self/pagemap").expect("there is a page map") }
    }

    /// How long the guest and the reset took.
    fn cycle(&mut self) -> (Duration, Duration) {
        let guest = time(|| self.guest.run_to_exit());
        let reset = time(|| self.reset());
        for page in [0, self.pages - 1] {
            let address = GuestAddress(DATA_START + (page * PAGE_BYTES) as u64);
            assert_eq!(
                self.guest.memory.read_obj::<u8>(address).expect("it lies in RAM"),
                IMAGE_BYTE,
                "page {page} was not reset"
            );
        }
        (guest, reset)
    }

    fn reset(&self) {
        match self.way {
            Way::PageMap => {
                let first = self.data(&self.guest.memory) as u64;
                for (start, end) in private_pages(&self.page_map, first, first + DATA_BYTES as u64) {
                    let pages = page_of(start - first)..page_of(end - first);
                    pages.for_each(|page| self.copy(page, 1, Compare::First));
                }
            }
            Way::DirtyLog => {
                let log = self.guest.vm.get_dirty_log(0, RAM_BYTES).expect("KVM_GET_DIRTY_LOG");
                let skipped = page_of(DATA_START - START);
                for (index, word) in log.iter().enumerate().filter(|(_, word)| **word != 0) {
                    let pages = (0..64).filter(|bit| word >> bit & 1 == 1).map(|bit| 64 * index + bit);
                    // Code and tables are written by nobody.
                    pages.filter_map(|page| page.checked_sub(skipped)).for_each(|page| self.copy(page, 1, Compare::Never));
                }
            }
            Way::Refault => {
                // SAFETY: the range is part of a mapping of this process, to which there are no references.
                let result = unsafe { libc::madvise(self.data(&self.guest.memory).cast(), DATA_BYTES, libc::MADV_DONTNEED) };
                assert_eq!(result, 0, "{}", io::Error::last_os_error());
            }
            Way::CopyUsed => self.copy(0, self.pages.max(LEAST_USED_PAGES), Compare::Never),
        }
    }

    /// Copies so many pages of the data from the image.
    fn copy(&self, page: usize, pages: usize, compare: Compare) {
        let (offset, bytes) = (page * PAGE_BYTES, pages * PAGE_BYTES);
        assert!(offset + bytes <= DATA_BYTES);
        let to = self.data(&self.guest.memory).wrapping_add(offset);
        let from = self.data(&self.image).wrapping_add(offset).cast_const();
        // SAFETY: both ranges lie in the data of their mappings, which nobody else accesses at this moment.
        unsafe {
            if compare == Compare::Never || libc::memcmp(to.cast(), from.cast(), bytes) != 0 {
                ptr::copy_nonoverlapping(from, to, bytes);
            }
        }
    }

    fn data(&self, memory: &GuestMemoryMmap) -> *mut u8 {
        memory.get_host_address(GuestAddress(DATA_START)).expect("the data lie in RAM")
    }
}

fn page_of(offset: u64) -> usize {
    usize::try_from(offset).expect("x86-64 only, where usize has 64 bits") / PAGE_BYTES
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compare {
    First,
    Never,
}

const IMAGE_BYTE: u8 = 7;

/// A file in memory with code, tables and data.
fn image() -> File {
    // SAFETY: the name is a string that ends with 0.
    let fd = unsafe { libc::memfd_create(c"image".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the descriptor is new and belongs to nobody else.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(RAM_BYTES as u64).expect("a file in memory can grow");
    file.write_all_at(&vec![IMAGE_BYTE; DATA_BYTES], DATA_START - START).expect("it can be written");
    let memory = map(file.try_clone().expect("a descriptor can be duplicated"), libc::MAP_SHARED);
    memory.write_slice(&CODE, GuestAddress(START)).expect("the code fits");
    write_tables(&memory);
    // The data, by large pages.
    const LARGE_PAGE_BYTES: u64 = 2 << 20;
    for index in DATA_START / LARGE_PAGE_BYTES..RAM_BYTES as u64 / LARGE_PAGE_BYTES {
        // Present, writable, user, accessed, dirty, large.
        let entry = (index * LARGE_PAGE_BYTES) | 0xe7;
        memory.write_obj(entry, GuestAddress(DIRECTORY + 8 * index)).expect("the tables lie in RAM");
    }
    file
}

/// The file as guest memory.
fn map(file: File, kind: libc::c_int) -> GuestMemoryMmap {
    let region = MmapRegionBuilder::new(RAM_BYTES)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(kind | libc::MAP_NORESERVE)
        .with_file_offset(FileOffset::new(file, 0))
        .build()
        .expect("64 MiB can be mapped");
    let region = GuestRegionMmap::new(region, GuestAddress(START)).expect("the region does not overflow");
    GuestMemoryMmap::from_regions(vec![region]).expect("one region is a memory")
}

/// struct pm_scan_arg (Linux documentation, admin-guide/mm/pagemap.rst).
#[repr(C)]
#[derive(Debug, Default)]
struct ScanArgument {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vector: u64,
    vector_length: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_any_of_mask: u64,
    return_mask: u64,
}

/// _IOWR('f', 16, struct pm_scan_arg).
const PAGEMAP_SCAN: libc::c_ulong =
    3 << 30 | (size_of::<ScanArgument>() as libc::c_ulong) << 16 | (b'f' as libc::c_ulong) << 8 | 16;

/// The ranges of addresses in a private mapping that are the process's own.
fn private_pages(page_map: &File, start: u64, end: u64) -> Vec<(u64, u64)> {
    const IS_FILE: u64 = 1 << 2;
    const IS_PRESENT: u64 = 1 << 3;
    // Each is a struct page_region: start, end, categories.
    let mut regions = [[0u64; 3]; 64];
    let mut argument = ScanArgument {
        size: size_of::<ScanArgument>() as u64,
        start,
        end,
        vector: regions.as_mut_ptr() as u64,
        vector_length: regions.len() as u64,
        category_inverted: IS_FILE,
        category_mask: IS_FILE | IS_PRESENT,
        return_mask: IS_PRESENT,
        ..ScanArgument::default()
    };
    // SAFETY: the argument has the size that it says and lives through the call, and so does the vector, which has as many
    // elements as it says.
    let count = unsafe { libc::ioctl(page_map.as_raw_fd(), PAGEMAP_SCAN, &raw mut argument) };
    let count = usize::try_from(count).expect("PAGEMAP_SCAN");
    // What is written lies side by side.
    assert!(count < regions.len());
    regions.iter().take(count).map(|[start, end, _]| (*start, *end)).collect()
}
