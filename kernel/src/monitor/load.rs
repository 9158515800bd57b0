//! What the loader gave: the command line, the module, the ramdisk; and where they are put so that the kernel can have them.

use core::{fmt, ops::Range};

use mote_abi::{
    boot::Span,
    layout::{CHUNK_BYTES, CONFIG, IMAGE, MODULE, MONITOR, PAGE_BYTES, RAMDISK},
};
use mote_kernel_logic::boot::{
    acpi::Tables,
    artifact,
    bundle::{Bundle, BundleError, is_archive},
    loader::{BootModule, Loaded, Physical},
    memory::FreeMemory,
    options::{Options, Texts, arguments, values},
};
use mote_machine::space::ModuleSizes;

use super::{
    Monitor,
    channel::RecordChannel,
    console::Console,
    memory::{LOW_END, Low, View, copy_low},
    watchdog::Watchdog,
};

/// The memory that programs, and the kernel, cannot do without.
const MIN_POOL_BYTES: u64 = 4 * CHUNK_BYTES;
/// From here on a file is mapped by large pages.
const LARGE_FROM_BYTES: u64 = 256 << 20;
/// Below, firmware has things of its own.
const FIRST_USABLE: u64 = 1 << 20;

/// The files for the kernel, in memory that is theirs.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Files {
    /// Guest-physical, from a page on.
    pub(super) module_at: u64,
    pub(super) module: ModuleSizes,
    pub(super) ramdisk_at: u64,
    pub(super) ramdisk_bytes: u64,
    /// Where in [`CONFIG`] the strings lie, and how far it is filled.
    pub(super) strings: Strings,
    pub(super) config_bytes: u64,
}

/// What the program is given.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Strings {
    pub(super) arguments: Span,
    pub(super) environment: Span,
    pub(super) entry: Span,
    pub(super) entry_arguments: Span,
}

/// Why the files cannot be used.
pub(super) enum LoadError {
    NoModule,
    NotAModule,
    OtherEngine,
    NotReadable { what: &'static str },
    Bundle(BundleError),
    TooLong,
    Fragmented,
    Overlap { bytes: u64, total_bytes: u64 },
    TwoBundles,
    OverLimit { what: &'static str, bytes: u64, most_bytes: u64 },
    TooLarge { module_bytes: u64, ramdisk_bytes: u64, total_bytes: u64, left_bytes: u64 },
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoModule => f.write_str(
                "there is no module: the loader has to give one as a boot module (QEMU: -initrd; GRUB: module2), alone or in a bundle",
            ),
            Self::NotAModule => f.write_str("the boot module that is to be run is neither WebAssembly nor a compiled module"),
            Self::OtherEngine if cfg!(feature = "compiled") => {
                f.write_str("this kernel runs compiled modules, and this one is not compiled")
            }
            Self::OtherEngine => f.write_str("this kernel interprets modules, and this one is compiled"),
            Self::NotReadable { what } => write!(f, "the {what} does not lie in memory below 4 GiB"),
            Self::Bundle(error) => error.fmt(f),
            Self::TooLong => {
                write!(f, "arguments and environment take more than {} KiB together", CONFIG.bytes() >> 10)
            }
            Self::OverLimit { what, bytes, most_bytes } => {
                write!(f, "the {what} has {} KiB; it can have at most {}", bytes >> 10, most_bytes >> 10)
            }
            Self::Overlap { bytes, total_bytes } => write!(
                f,
                "the loader put a boot module of {} KiB where the kernel has to be, from {} to {} KiB: of {} KiB of memory there may be no \
                 other place for it",
                bytes >> 10,
                IMAGE.start >> 10,
                MONITOR.end >> 10,
                total_bytes >> 10,
            ),
            Self::TwoBundles => f.write_str("there is more than one bundle"),
            Self::Fragmented => f.write_str("the memory map has more parts than can be used"),
            Self::TooLarge { module_bytes, ramdisk_bytes, total_bytes, left_bytes } => write!(
                f,
                "the module ({} KiB) and the ramdisk ({} KiB) do not fit: of {} KiB of memory they leave {} KiB, and a program needs \
                 at least {} KiB",
                module_bytes >> 10,
                ramdisk_bytes >> 10,
                total_bytes >> 10,
                left_bytes >> 10,
                MIN_POOL_BYTES >> 10,
            ),
        }
    }
}

/// Reads what the loader left, and opens console and channel as the command line says. Does not come back if there is a mistake in it.
pub(super) fn read(monitor: &mut Monitor, magic: u64, info: u64) -> Loaded<'static> {
    let loaded = Loaded::read(Low, magic as u32, info);
    let loaded = monitor.check(loaded);
    let (options, result) = Options::parse(texts(&loaded));
    monitor.options = options;
    monitor.console = Console::open(&options);
    monitor.record = RecordChannel::open(&options);
    monitor.watchdog = Watchdog::new(options.watchdog_s);
    monitor.watchdog.feed();
    monitor.acpi = loaded.rsdp.and_then(|root| Tables::at(Low, root));
    monitor.check(result);
    loaded
}

/// The text of the bundle, and that of the loader.
fn texts(loaded: &Loaded<'static>) -> Texts<'static> {
    let of_bundle = loaded.modules().iter().find_map(|module| {
        let bytes = contents(module).ok().filter(|bytes| kind(module, bytes) == Some(Kind::Bundle))?;
        bytes.get(Bundle::read(bytes).ok()?.command_line?)
    });
    [of_bundle.unwrap_or(&[]), loaded.command_line]
}

/// What a boot module is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Module,
    Ramdisk,
    Bundle,
}

fn kind(module: &BootModule<'_>, bytes: &[u8]) -> Option<Kind> {
    let named = module.string.split(|byte| *byte == b' ').next();
    match named {
        Some(b"module") => Some(Kind::Module),
        Some(b"ramdisk") => Some(Kind::Ramdisk),
        Some(b"bundle") => Some(Kind::Bundle),
        _ if is_module(bytes) => Some(Kind::Module),
        _ if is_archive(bytes) => Some(Kind::Bundle),
        _ => None,
    }
}

fn is_module(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\0asm") || artifact::is_artifact(bytes)
}

fn contents(module: &BootModule<'_>) -> Result<&'static [u8], LoadError> {
    Low.bytes(module.start, module.bytes).ok_or(LoadError::NotReadable { what: "boot module" })
}

/// Finds module and ramdisk, writes the strings into the configuration, and puts everything where it can be mapped.
pub(super) fn place(monitor: &mut Monitor, loaded: &Loaded<'static>) -> Result<Files, LoadError> {
    let (mut module, mut ramdisk): (Option<Range<u64>>, Option<Range<u64>>) = (None, None);
    let mut has_bundle = false;
    for boot_module in loaded.modules() {
        let bytes = contents(boot_module)?;
        let whole = boot_module.start..boot_module.start + boot_module.bytes;
        match kind(boot_module, bytes) {
            Some(Kind::Module) => module = Some(whole),
            Some(Kind::Ramdisk) => ramdisk = Some(whole),
            Some(Kind::Bundle) if has_bundle => return Err(LoadError::TwoBundles),
            Some(Kind::Bundle) => {
                has_bundle = true;
                let bundle = Bundle::read(bytes).map_err(LoadError::Bundle)?;
                let member = |part: Range<usize>| whole.start + part.start as u64..whole.start + part.end as u64;
                module = bundle.module.map(member).or(module);
                ramdisk = bundle.ramdisk.map(member).or(ramdisk);
            }
            None => return Err(LoadError::NotAModule),
        }
    }
    let module = module.ok_or(LoadError::NoModule)?;
    let ramdisk = ramdisk.unwrap_or(0..0);
    let bytes = Low.bytes(module.start, module.end - module.start).unwrap_or(&[]);
    let text = match (is_module(bytes), artifact::is_artifact(bytes)) {
        (false, _) => return Err(LoadError::NotAModule),
        (true, is_compiled) if is_compiled != cfg!(feature = "compiled") => return Err(LoadError::OtherEngine),
        _ => artifact::text(bytes).unwrap_or(0..0),
    };
    for (what, file, region) in [("module", &module, MODULE), ("ramdisk", &ramdisk, RAMDISK)] {
        let (bytes, most_bytes) = (file.end - file.start, region.bytes());
        if bytes > most_bytes {
            return Err(LoadError::OverLimit { what, bytes, most_bytes });
        }
    }
    // Before anything is moved: what the loader left may lie anywhere.
    let (strings, config_bytes) = write_strings(texts(loaded))?;
    let used = [module.clone(), ramdisk.clone()];
    let (memory, [module_at, ramdisk_at]) = make_room(loaded, used)?;
    monitor.memory = memory;
    Ok(Files {
        module_at,
        module: ModuleSizes { bytes: module.end - module.start, text_start: text.start, text_end: text.end },
        ramdisk_at,
        ramdisk_bytes: ramdisk.end - ramdisk.start,
        strings,
        config_bytes,
    })
}

/// Moves those files that do not begin on a page; where they are then, and what memory is free.
fn make_room(loaded: &Loaded<'static>, files: [Range<u64>; 2]) -> Result<(FreeMemory, [u64; 2]), LoadError> {
    let (mut free, total_bytes) = (loaded.memory.clone(), loaded.memory.bytes());
    let fragmented = |_| LoadError::Fragmented;
    free.remove(0..FIRST_USABLE).map_err(fragmented)?;
    free.remove(IMAGE.start..MONITOR.end).map_err(fragmented)?;
    for module in loaded.modules() {
        free.remove(module.start..module.start + module.bytes).map_err(fragmented)?;
    }
    let [module_bytes, ramdisk_bytes] = files.clone().map(|file| file.end - file.start);
    let too_large = |left_bytes| LoadError::TooLarge { module_bytes, ramdisk_bytes, total_bytes, left_bytes };
    // A loader that does not look where the kernel is has overwritten one by the other.
    let is_reserved = |module: &&BootModule<'_>| module.start < MONITOR.end && IMAGE.start < module.start + module.bytes;
    if let Some(BootModule { bytes, .. }) = loaded.modules().iter().find(is_reserved) {
        return Err(LoadError::Overlap { bytes: *bytes, total_bytes });
    }
    let mut places = [0; 2];
    for (place, file) in places.iter_mut().zip(&files) {
        *place = file.start;
        let bytes = file.end - file.start;
        // What is large has to be mapped by large pages: there is no room for that many tables.
        let alignment = if bytes < LARGE_FROM_BYTES { PAGE_BYTES } else { CHUNK_BYTES };
        if !file.start.is_multiple_of(alignment) {
            let room = free.take(bytes + alignment - PAGE_BYTES, LOW_END);
            *place = room.ok_or(too_large(free.bytes()))?.next_multiple_of(alignment);
            let contents = Low.bytes(file.start, bytes).ok_or(LoadError::NotReadable { what: "boot module" })?;
            // SAFETY: the place was free until now, and is as large.
            unsafe { copy_low(*place, contents) };
        }
    }
    let left_bytes = free.chunks() * CHUNK_BYTES;
    if left_bytes < MIN_POOL_BYTES {
        return Err(too_large(left_bytes));
    }
    Ok((free, places))
}

/// Writes all strings of the program one behind the other, each with a NUL.
fn write_strings(texts: Texts<'_>) -> Result<(Strings, u64), LoadError> {
    let mut writer = Writer { at: 0 };
    let name = values(texts, "argv0").last();
    let entry = values(texts, "invoke").last();
    let of_program = |of_program: bool| arguments(texts).filter(move |_| of_program).map(|word| word.bytes());
    let is_invoked = entry.is_some();
    let arguments = match name {
        Some(name) => writer.all(core::iter::once(name).chain(of_program(!is_invoked)))?,
        None => {
            let first = writer.all([b"module".iter().copied()].into_iter())?;
            let rest = writer.all(of_program(!is_invoked))?;
            Span { bytes: first.bytes + rest.bytes, count: first.count + rest.count, ..first }
        }
    };
    let environment = writer.all(values(texts, "env"))?;
    let entry = writer.all(entry.into_iter())?;
    let entry_arguments = writer.all(of_program(is_invoked))?;
    writer.fill_page();
    Ok((Strings { arguments, environment, entry, entry_arguments }, u64::from(writer.at)))
}

/// How far the configuration is filled.
struct Writer {
    at: u32,
}

impl Writer {
    /// Zeros to the end of the page, all of which the kernel sees.
    fn fill_page(&self) {
        let end = CONFIG.start + u64::from(self.at);
        (end..end.next_multiple_of(8)).for_each(|at| View::store(at, 0u8));
        View::clear(end.next_multiple_of(8), end.next_multiple_of(PAGE_BYTES) - end.next_multiple_of(8));
    }

    fn all(&mut self, strings: impl Iterator<Item = impl Iterator<Item = u8>>) -> Result<Span, LoadError> {
        let offset = self.at;
        let mut count = 0;
        for string in strings {
            for byte in string.chain([0]) {
                if u64::from(self.at) == CONFIG.bytes() {
                    return Err(LoadError::TooLong);
                }
                View::store(CONFIG.start + u64::from(self.at), byte);
                self.at += 1;
            }
            count += 1;
        }
        Ok(Span { offset, bytes: self.at - offset, count, reserved: 0 })
    }
}
