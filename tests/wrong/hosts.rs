//! Hosts that are not as they should be: full disks, no KVM, a module that changes while it runs, senseless options.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::support::{
    command::{Outcome, finish, module_file, mote, payload, payload_line, run, run_payload},
    engine, kvm,
    wasm::{sized, start},
};

/// Host or VM failed.
const FAILURE: i32 = 125;
const USAGE: i32 = 2;

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    if !kvm::usable() {
        return;
    }
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    for name in ["hello.wat", "lines.wat", "flood.wat", "print-then-spin.wat"] {
        let started = Instant::now();
        let outcome = finish(mote(payload_line(&["--timeout", "40s"], name, &[])).stdout(full()).spawn().unwrap());
        outcome.complains(FAILURE, "cannot write standard output: No space left on device");
        assert!(started.elapsed() < Duration::from_secs(10), "{name}: {:?}", started.elapsed());
    }
    // A trap stays a trap.
    let outcome = finish(mote(payload_line(&[], "trap-after-print.wat", &[])).stdout(full()).spawn().unwrap());
    outcome.complains(134, "wasm trap: unreachable");
    // A descriptor that is for reading only.
    let reading = File::open("/dev/null").unwrap();
    let outcome = finish(mote(payload_line(&[], "hello.wat", &[])).stdout(reading).spawn().unwrap());
    outcome.complains(FAILURE, "cannot write standard output: Bad file descriptor");
}

#[test]
fn senseless_sizes_are_refused() {
    if !kvm::usable() {
        return;
    }
    for size in ["0", "1MiB", "15MiB", "61GiB", "1000000TiB"] {
        run_payload(&["--memory", size], "hello.wat", &[]).complains(USAGE, "16 MiB to 60 GiB");
    }
    for size in ["16MiB", "17MiB", "33333333", "60GiB"] {
        run_payload(&["--memory", size], "hello.wat", &[]).expect(0);
    }
    let wrong = [
        ("--memory", ["", "x", "-1", "12XB"]),
        ("--max-wasm-memory", ["", "much", "-5MiB", "1 2"]),
        ("--fuel", ["", "-1", "1.5", "18446744073709551616"]),
        ("--timeout", ["0s", "5", "-1s", "99999999999999999999s"]),
        ("--stats", ["", "xml", "JSON", "json,table"]),
        ("--log", ["loud", "", "5", "debug,trace"]),
    ];
    for (option, values) in wrong {
        for value in values {
            let outcome = run_payload(&[&format!("{option}={value}")], "hello.wat", &[]).expect(2);
            assert!(outcome.stderr.starts_with("error: ") && outcome.stderr.contains(option), "{outcome:?}");
        }
    }
}

#[test]
fn strings_that_cannot_be_passed_are_refused() {
    if !kvm::usable() {
        return;
    }
    // Linux allows 128 KiB for one argument.
    let long = "x".repeat(120_000);
    run_payload(&[], "args.wat", &[long.as_str(); 8]).expect(0);
    run_payload(&[], "args.wat", &[long.as_str(); 9]).complains(USAGE, "at most 1048576 can be passed");
}

#[test]
fn a_kernel_image_that_is_none_is_refused() {
    if !kvm::usable() {
        return;
    }
    let hello = payload("hello.wat").display().to_string();
    for kernel in ["/dev/null", &hello, "/nowhere"] {
        run(["run", "--kernel", kernel, &hello]).complains(FAILURE, "kernel image");
    }
}

/// The file is mapped: cutting it short takes memory away from the guest while it reads it.
#[test]
fn a_module_cut_short_while_it_is_read_ends_the_run_in_words() {
    if !kvm::usable() {
        return;
    }
    // Passive data, so that the parser has to read all of it.
    let data = [&[1, 1][..], &sized(&vec![b'.'; 48 << 20])].concat();
    let whole = [start(&[], &[]), [&[11][..], &sized(&data)].concat()].concat();
    let mut endings = [0; 3];
    for step in 0..12 {
        let mut file = module_file(&whole);
        file.flush().unwrap();
        let child = mote(["run".as_ref(), file.path().as_os_str()]).spawn().unwrap();
        thread::sleep(Duration::from_millis(4 * step));
        file.as_file().set_len(4096).unwrap();
        let outcome = finish(child);
        match outcome.status {
            Some(0) => endings[0] += 1,
            // Cut before it was opened.
            Some(126) => {
                outcome.complains(126, "not valid");
                endings[1] += 1;
            }
            _ => {
                outcome.complains(FAILURE, "was the module's file changed while it ran?");
                endings[2] += 1;
            }
        }
    }
    println!("ran, refused, cut: {endings:?}");
    // Replacing a file leaves the mapped one alone.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("module.wasm");
    fs::write(&path, &whole).unwrap();
    let child = mote(["run".as_ref(), path.as_os_str()]).spawn().unwrap();
    thread::sleep(Duration::from_millis(20));
    let other = directory.path().join("other");
    fs::write(&other, b"no module").unwrap();
    fs::rename(other, path).unwrap();
    finish(child).expect(0);
}

/// Runs `mote run hello.wat` by a shell line in which `$0` is mote and `$1` the module; `None`, with the reason, if the
/// surroundings cannot be made here.
fn with_surroundings(tool: &str, arguments: &[&str], script: &str) -> Option<Outcome> {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Where anybody can reach them.
    let [binary, module] = ["mote", "hello.wat"].map(|name| directory.path().join(name));
    fs::copy(env!("CARGO_BIN_EXE_mote"), &binary).unwrap();
    fs::copy(payload("hello.wat"), &module).unwrap();
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&module, fs::Permissions::from_mode(0o644)).unwrap();
    let run = |script: &str| {
        let mut command = Command::new(tool);
        command.args(arguments).args(["sh", "-c", script]).args([&binary, &module]);
        // No cache, as it may run as another user.
        command.env_remove("XDG_CACHE_HOME").env_remove("HOME");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map(finish)
    };
    let engine = engine::under_test().options().join(" ");
    match run(&format!("{script} test -x \"$0\"")) {
        Ok(outcome) if outcome.status == Some(0) => Some(run(&format!("{script} exec \"$0\" run {engine} \"$1\"")).unwrap()),
        Ok(outcome) => {
            println!("skipped: {tool} cannot do that here: {}", outcome.stderr);
            None
        }
        Err(error) => {
            println!("skipped: no {tool}: {error}");
            None
        }
    }
}

#[test]
fn without_kvm_the_message_says_what_to_do() {
    // An empty directory as /dev.
    if let Some(outcome) = with_surroundings("unshare", &["-m"], "mount -t tmpfs none /dev &&") {
        outcome.complains(FAILURE, "/dev/kvm").complains(FAILURE, "mote doctor").complains(FAILURE, "mote qemu");
    }
    // A file that is no device.
    if let Some(outcome) = with_surroundings("unshare", &["-m"], "mount --bind \"$1\" /dev/kvm &&") {
        outcome.complains(FAILURE, "this KVM cannot be used").complains(FAILURE, "mote doctor");
    }
}

#[test]
fn without_permission_for_kvm_the_message_says_what_to_do() {
    let nobody = ["--reuid", "65534", "--regid", "65534", "--clear-groups"];
    if let Some(outcome) = with_surroundings("setpriv", &nobody, "") {
        if outcome.status == Some(0) {
            println!("skipped: anybody may use /dev/kvm here");
            return;
        }
        outcome.complains(FAILURE, "/dev/kvm").complains(FAILURE, "ermission").complains(FAILURE, "mote doctor");
    }
}
