//! `mote run` and VMs of the library under confinement: that it is there, that it holds all that a run does, and what
//! happens without. What confined threads cannot do is tested beside the code, in `vmm/src/confinement/tests.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support {
    pub(crate) mod command;
    pub(crate) mod engine;
    pub(crate) mod kvm;
}

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    process::Child,
    thread,
};

use mote_vmm::{Config, Confinement, ConfinementError, ConfinementSupport, Ending, HostFailure, Layer, Output, SharedBuffer, Vm};
use rustix::process::Signal;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use support::{
    command::{Outcome, finish, kill, mote, payload, payload_line, run, run_payload, run_with_input},
    engine, kvm,
};

/// With these, a machine that lacks something would be seen.
fn required() -> bool {
    let ConfinementSupport { seccomp, landlock_abi } = ConfinementSupport::probe();
    let Err(error) = seccomp.and(landlock_abi) else { return kvm::usable() };
    assert!(matches!(error, ConfinementError::Unsupported { .. }), "{error}");
    let thread = thread::current();
    let _written = writeln!(std::io::stderr(), "skipped {}: {error}", thread.name().unwrap_or("a test"));
    false
}

/// Some fields of each thread's status, by name of the thread.
fn threads(process: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let status = |directory: fs::DirEntry| {
        // A thread of KVM may end meanwhile.
        let text = fs::read_to_string(directory.path().join("status")).ok()?;
        let fields = text.lines().filter_map(|line| line.split_once(":\t"));
        let fields: BTreeMap<String, String> = fields.map(|(name, value)| (name.into(), value.trim().into())).collect();
        Some((fields["Name"].clone(), fields))
    };
    fs::read_dir(format!("/proc/{process}/task")).unwrap().filter_map(|directory| status(directory.unwrap())).collect()
}

/// A field of the calling thread's status.
fn own_status(field: &str) -> String {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(":\t"));
    value.unwrap_or_else(|| panic!("no {field}: {status}")).to_owned()
}

/// Starts a module that prints a line and spins; it has been entered when this returns.
fn spinning(options: &[&str]) -> Child {
    let mut child = mote(payload_line(options, "print-then-spin.wat", &[])).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "before the loop\n");
    child
}

#[test]
fn every_thread_of_a_run_is_confined() {
    if !kvm::usable() {
        return;
    }
    let child = spinning(&[]);
    let mut confined = threads(&child.id().to_string());
    kill(&child, Signal::INT);
    finish(child).complains(137, "interrupted");
    // Some kernels work for KVM by a thread of its own in the process.
    confined.retain(|name, _| !name.starts_with("kvm-"));
    assert_eq!(confined.keys().collect::<Vec<_>>(), ["mote"]);
    for (name, status) in confined {
        assert_eq!((&*status["Seccomp"], &*status["NoNewPrivs"]), ("2", "1"), "{name}");
    }

    let child = spinning(&["--confinement=off"]);
    let free = threads(&child.id().to_string());
    kill(&child, Signal::INT);
    finish(child).complains(137, "interrupted");
    let own = own_status("Seccomp");
    assert!(free.values().all(|status| status["Seccomp"] == own), "{free:?}");
}

#[test]
fn each_end_of_a_run_is_what_it_was() {
    if !required() {
        return;
    }
    let run = |options: &[&str], name, arguments: &[&str]| {
        let options = [&["--confinement=required"], options].concat();
        run_payload(&options, name, arguments)
    };
    run(&[], "hello.wat", &[]).expect_output("Hello from a micro VM!\n");
    assert_eq!(run(&["--log", "debug"], "exit.wat", &[]).expect(42).text(), "");
    run(&["--timeout", "200ms"], "spin.wat", &[]).complains(124, "deadline");
    run(&[], "trap-after-print.wat", &[]).complains(134, "unreachable");
    run(&["--fuel", "1000"], "spin.wat", &[]).complains(134, "fuel");
    run(&[], "unknown-import.wat", &[]).complains(126, "no_such_function");
    // Memory that gets its slots and its pages while it runs.
    run(&["--memory", "6GiB"], "huge-memory.wat", &[]).expect_output("");
    run(&[], "sleep.wat", &[]).expect_output("");
    run(&[], "clock.wat", &[]).expect_output("");
    assert!(run(&["--stats"], "hello.wat", &[]).expect(0).stderr.contains("RAM touched"));
    assert_eq!(run(&["--stats=json"], "exit.wat", &[]).expect(42).stats()["exit_status"], 42);
    let mut cat = mote(payload_line(&["--confinement=required"], "cat.wat", &[]));
    assert_eq!(run_with_input(&mut cat, &[7; 100_000]).expect(0).stdout, [7; 100_000]);
}

#[test]
fn signals_and_readers_that_went_away_are_handled() {
    if !required() {
        return;
    }
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let child = spinning(&["--confinement=required"]);
        kill(&child, signal);
        finish(child).complains(137, "interrupted by a signal");
    }
    // Stopped and continued in the middle of everything.
    let child = spinning(&["--confinement=required", "--timeout", "500ms"]);
    for _ in 0..20 {
        kill(&child, Signal::STOP);
        thread::sleep(std::time::Duration::from_millis(5));
        kill(&child, Signal::CONT);
        thread::sleep(std::time::Duration::from_millis(5));
    }
    finish(child).complains(124, "deadline");
    // The program sees the errno `pipe` and ends by itself.
    let mut child = mote(payload_line(&["--confinement=required", "--timeout", "30s"], "lines.wat", &[])).spawn().unwrap();
    drop(child.stdout.take());
    let outcome = finish(child);
    assert!(outcome.status.is_some_and(|status| status != 124) && !outcome.stderr.contains("panicked"), "{outcome:?}");
}

/// Runs `mote` with a system call that the kernel lacks.
fn run_lacking(number: libc::c_long, errno: libc::c_int, options: &[&str]) -> Outcome {
    let rules = [(number, Vec::new())].into_iter().collect();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno.cast_unsigned()), TargetArch::x86_64);
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    let install = move || seccompiler::apply_filter(&program).map_err(|_| std::io::ErrorKind::Other.into());
    let mut command = mote(payload_line(options, "hello.wat", &[]));
    // SAFETY: between fork and exec there are but two system calls.
    finish(unsafe { command.pre_exec(install) }.spawn().unwrap())
}

#[test]
fn a_kernel_without_confinement_runs_modules_unless_it_is_required() {
    if !kvm::usable() {
        return;
    }
    let landlock = libc::SYS_landlock_create_ruleset;
    for (number, errno, what) in [
        (landlock, libc::ENOSYS, "this kernel does not offer Landlock"),
        (landlock, libc::EOPNOTSUPP, "boot it with landlock in the list lsm="),
        (libc::SYS_seccomp, libc::ENOSYS, "this kernel does not offer seccomp"),
    ] {
        run_lacking(number, errno, &[]).expect_output("Hello from a micro VM!\n");
        let told = run_lacking(number, errno, &["--log", "info"]).expect(0).stderr;
        assert!(told.contains(what), "{told}");
        let outcome = run_lacking(number, errno, &["--confinement=required"]).complains(125, what);
        assert_eq!(outcome.text(), "");
        run_lacking(number, errno, &["--confinement=off"]).expect_output("Hello from a micro VM!\n");
    }
    // What is there but does not work is worth a warning.
    let outcome = run_lacking(libc::SYS_seccomp, libc::EPERM, &[]).expect(0);
    assert!(outcome.stderr.contains("WARN") && outcome.stderr.contains("seccomp"), "{outcome:?}");
}

#[test]
fn the_doctor_tells_what_is_there() {
    let text = run(["doctor"]).text().to_owned();
    if kvm::usable() {
        let line = |name: &str| text.lines().find(|line| line.starts_with(name)).expect("no line");
        assert_eq!(line("seccomp").contains("usable"), ConfinementSupport::probe().seccomp.is_ok());
        match ConfinementSupport::probe().landlock_abi {
            Ok(abi) => assert!(line("Landlock").ends_with(&format!("usable, ABI {abi}"))),
            Err(error) => assert!(line("Landlock").contains(&error.to_string())),
        }
    }
}

#[test]
fn a_vm_of_the_library_confines_its_own_threads_only() {
    if !required() {
        return;
    }
    let kernel = engine::kernel();
    let module = engine::module_file(&payload("print-then-spin.wat"));
    let stdout = SharedBuffer::new(1 << 10);
    let config = Config { stdout: Output::Buffer(stdout.clone()), confinement: Confinement::Required, ..Config::default() };
    let vm = Vm::new(&kernel, &module, config).unwrap();
    let handle = vm.interrupt_handle();
    let runner = thread::Builder::new().name("confined".into()).spawn(move || vm.run()).unwrap();
    while stdout.contents().is_empty() {
        thread::yield_now();
    }
    let found = threads("self");
    let filters = |name: &str| found[name]["Seccomp_filters"].parse::<u32>().unwrap();
    let before = own_status("Seccomp_filters").parse::<u32>().unwrap();
    assert_eq!(filters("confined"), before + 1, "{found:?}");
    // All others of this process are as they were, but for one that some kernels have for KVM, which begins where a VM runs.
    let others = found.keys().filter(|name| *name != "confined" && !name.starts_with("kvm-")).map(|name| filters(name));
    assert!(others.clone().count() > 0 && others.clone().all(|filters| filters == before), "{found:?}");
    // This thread may do what ends the process if a confined one does it.
    assert!(File::open("/proc/version").is_ok());
    handle.interrupt();
    let report = runner.join().unwrap();
    assert!(matches!(report.ending, Ending::Interrupted), "{:?}", report.ending);
    // And go on to make VMs of the same kernel and module.
    let config = || Config { confinement: Confinement::BestEffort, ..Config::default() };
    let hello = engine::module_file(&payload("hello.wat"));
    for _ in 0..3 {
        let vm = Vm::new(&kernel, &hello, config()).unwrap();
        let report = thread::spawn(move || vm.run()).join().unwrap();
        assert!(matches!(report.ending, Ending::Exited(0)), "{:?}", report.ending);
    }
}

#[test]
fn a_vm_that_must_be_confined_and_cannot_does_not_run() {
    if !kvm::usable() || required() {
        return;
    }
    let kernel = engine::kernel();
    let module = engine::module_file(&payload("hello.wat"));
    let config = Config { confinement: Confinement::Required, ..Config::default() };
    let vm = Vm::new(&kernel, &module, config).unwrap();
    let ending = thread::spawn(move || vm.run().ending).join().unwrap();
    assert!(matches!(
        ending,
        Ending::HostFailure(HostFailure::Confinement(ConfinementError::Unsupported { layer: Layer::Landlock, .. }))
    ));
}
