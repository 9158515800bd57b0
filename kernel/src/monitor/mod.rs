//! What takes the place of the VMM where there is none: it makes the machine, enters the kernel in ring 3, and answers it.
//!
//! The kernel does not know the difference. It finds what [`mote_abi::boot`] says and rings the doorbell; here that is an
//! exception, because the doorbell is not mapped, and the monitor is the handler: in ring 0, with memory that ring 3 cannot
//! reach, without a heap, without interrupts. Devices do what a host would.
//!
//! `entry` has the assembly, `load` looks at what the loader gave, `machine` makes tables and boot information, `trap` and `service`
//! answer; the rest are devices. What can do without a machine is in `mote_kernel_logic::boot`.

mod channel;
mod clock;
mod console;
mod cpu;
mod end;
mod entry;
mod load;
mod machine;
mod memory;
mod power;
mod random;
mod ring;
mod service;
mod trap;
mod watchdog;

use core::fmt;

use mote_abi::{layout::MONITOR_STATE, record::Phases};
use mote_kernel_logic::boot::{acpi::Tables, memory::FreeMemory, options::Options};

use channel::RecordChannel;
use clock::Timer;
use console::Console;
use load::Files;
use machine::Machine;
use memory::Low;
use watchdog::Watchdog;

/// All that the monitor knows, at the start of [`MONITOR_STATE`].
struct Monitor {
    options: Options,
    console: Console,
    record: RecordChannel,
    watchdog: Watchdog,
    /// What firmware tells of the machine, as far as anybody knows where it is.
    acpi: Option<Tables>,
    timer: Timer,
    phases: Phases,
    files: Files,
    /// What was free before the kernel was first entered.
    memory: FreeMemory,
    machine: Machine,
    /// How often the module failed since it last ended well.
    failures: u32,
}

/// Start-up of a machine without a VMM, in full. Entry conditions, kept by `entry`: ring 0 of long mode, the first 4 GiB mapped where
/// they are and at the monitor's view, the stack at the end of its region.
extern "C" fn start(magic: u64, info: u64, entered: u64) -> ! {
    let monitor = Monitor::init();
    monitor.phases = Phases { entered, long_mode: clock::timestamp(), ..Phases::default() };
    machine::load_descriptors();
    let loaded = load::read(monitor, magic, info);
    monitor.check(cpu::check());
    let files = load::place(monitor, &loaded);
    monitor.files = monitor.check(files);
    machine::keep_initial_data();
    monitor.phases.loaded = clock::timestamp();
    monitor.acpi = monitor.acpi.or_else(|| Tables::search(Low));
    let timer = Timer::calibrate(monitor.acpi.and_then(|tables| tables.hpet(Low)));
    monitor.timer = monitor.check(timer);
    monitor.phases.clock = clock::timestamp();
    monitor.run()
}

impl Monitor {
    /// Puts one into its place, which is nobody's yet.
    fn init() -> &'static mut Self {
        const { assert!(size_of::<Self>() as u64 + machine::INITIAL_DATA_BYTES <= MONITOR_STATE.bytes()) }
        let place = MONITOR_STATE.start as *mut Self;
        let options = Options::default();
        // SAFETY: this runs once, before anything refers to the region, which is memory that loaders keep free (the image
        // reserves it), aligned to pages, and large enough by the assertion.
        let monitor = unsafe {
            place.write(Self {
                options,
                console: Console::none(),
                record: RecordChannel::None,
                watchdog: Watchdog::new(None),
                acpi: None,
                timer: Timer::unknown(),
                phases: Phases::default(),
                files: Files::default(),
                memory: FreeMemory::new(),
                machine: Machine::none(),
                failures: 0,
            });
            &mut *place
        };
        monitor.console = Console::open(&options);
        monitor
    }

    /// That of an exception.
    ///
    /// # Safety
    ///
    /// [`Monitor::init`] has returned, and whoever holds another reference does not go on.
    unsafe fn get() -> &'static mut Self {
        // SAFETY: by the contract of this function it was written, and no other reference is used while this one is.
        unsafe { &mut *(MONITOR_STATE.start as *mut Self) }
    }

    /// Makes the machine anew, and enters the kernel.
    fn run(&mut self) -> ! {
        let seed = random::seed(&self.options);
        let seed = self.check(seed);
        if seed.is_weak && (self.console.is_terminal() || !self.record.is_open()) {
            self.console.line(format_args!("warning: random numbers are weak, as random=weak allows on this processor"));
        }
        let machine = Machine::build(self, seed.bytes);
        self.machine = self.check(machine);
        self.phases.tables = clock::timestamp();
        self.record.send_phases(&self.phases);
        machine::enter()
    }

    /// What `result` holds, or the end with its error.
    fn check<T, E: fmt::Display>(&mut self, result: Result<T, E>) -> T {
        match result {
            Ok(value) => value,
            Err(error) => self.fail(format_args!("{error}")),
        }
    }
}

/// Ends a monitor that panicked. In ring 0 there is nobody else to tell.
pub(crate) fn panic(message: fmt::Arguments<'_>) -> ! {
    // SAFETY: whatever panicked does not go on. If that was before there was a monitor, the region holds no sound value; nothing
    // before panics.
    unsafe { Monitor::get() }.fail(format_args!("the monitor panicked: {message}"))
}

/// Whether this is ring 0.
pub(crate) fn is_running() -> bool {
    let code: u16;
    // SAFETY: reads a register that every ring can read.
    unsafe { core::arch::asm!("mov {0:x}, cs", out(reg) code, options(nomem, nostack, preserves_flags)) };
    code & 3 == 0
}
