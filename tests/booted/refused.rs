//! What a machine without this VMM cannot have is refused by name.

use crate::support::command::{module_file, payload, run};

#[test]
fn what_cannot_be_there_is_refused() {
    let module = payload("hello.wat").display().to_string();
    let refused: [(&str, &[&str], &str); 14] = [
        ("qemu", &["--dir", "."], "--ramdisk"),
        ("qemu", &["--dir-ro", "."], "--ramdisk"),
        ("qemu", &["--tcplisten", "127.0.0.1:1"], "no network"),
        ("qemu", &["--confinement=required"], "not confined"),
        ("qemu", &["--verify"], "snapshots"),
        ("qemu", &["--memory", "31MiB"], "32.0 MiB at least"),
        ("qemu", &["--cmdline", "nonsense"], "nonsense"),
        ("qemu", &["--cmdline", "terminal -- a"], "behind MODULE"),
        ("image", &["-o", "x.img", "--dir", "."], "--ramdisk"),
        ("image", &["-o", "x.img", "--dir-ro", "."], "--ramdisk"),
        ("image", &["-o", "x.img", "--firmware", "bios"], "--verify"),
        ("image", &["-o", "x.img", "--memory", "1GiB"], "RAM of the board"),
        ("image", &["-o", "x.img", "--timeout", "1s"], "watchdog"),
        ("image", &["-o", "x.img", "--cmdline", "exit=never"], "exit=never"),
    ];
    for (subcommand, options, about) in refused {
        let arguments = [&[subcommand], options, &[module.as_str()]].concat();
        run(arguments).complains(2, about);
    }
}

/// What is said for the other half of `mote image` would change nothing.
#[test]
fn what_would_be_ignored_is_refused_by_name() {
    let settled: [&[&str]; 12] = [
        &["--cmdline", "exit=halt"],
        &["--no-terminal"],
        &["--invoke", "f"],
        &["--env", "A=1"],
        &["--dir", "."],
        &["--dir-ro", "."],
        &["--ramdisk", "x.tar"],
        &["--max-wasm-memory", "1MiB"],
        &["--fuel", "1"],
        &["--argv0", "x"],
        &["--engine", "auto"],
        &["--kernel", "x"],
    ];
    let of_the_trial: [&[&str]; 4] = [&["--qemu", "x"], &["--accel", "tcg"], &["--cpu", "max"], &["--qemu-arg", "x"]];
    let verify = settled.map(|options| [&["image", "--verify", "x.img"], options].concat());
    let make = of_the_trial.map(|options| [&["image", "-o", "x.img", "a.wasm"], options].concat());
    for line in verify.into_iter().chain(make) {
        let outcome = run(&line).expect(2);
        assert!(
            outcome.stderr.contains("cannot be used with")
                && line.iter().rev().take(2).any(|word| outcome.stderr.contains(&format!("'{word}"))),
            "{outcome:?}"
        );
    }
    if cfg!(feature = "compiled") {
        run(["image", "--verify", "x.img", "--target-cpu", "x86-64"]).expect(2);
    }
}

/// QEMU would put it over the kernel, which then could say nothing.
#[test]
fn a_module_that_leaves_no_room_is_refused_with_the_sizes() {
    // With a custom section that is all of it.
    let module = |mebibytes: usize| {
        let bytes = mebibytes << 20;
        let digit = |shift: u32| (bytes >> shift).to_le_bytes()[0] & 0x7f;
        let length = [digit(0) | 0x80, digit(7) | 0x80, digit(14) | 0x80, digit(21)];
        module_file([&b"\0asm\x01\0\0\0\0"[..], &length, &vec![0; bytes]].concat())
    };
    let large = module(49);
    let run = |memory| run(["qemu", "--dry-run", "--keep", "/dev/null/no", "--memory", memory, large.path().to_str().unwrap()]);
    for word in ["64.0 MiB", "49.0 MiB", "88.0 MiB"] {
        run("64MiB").complains(126, word);
    }
    // It is the next thing that is wrong then.
    run("96MiB").complains(125, "/dev/null/no");
}

#[test]
fn a_wrong_command_line_says_where_help_is() {
    let wrong: [&[&str]; 6] = [
        &["qemu"],
        &["qemu", "--keep", "x", "a.wasm"],
        &["image"],
        &["image", "a.wasm"],
        &["image", "-o", "x.img"],
        &["image", "--verify", "x.img", "a.wasm"],
    ];
    for arguments in wrong {
        let outcome = run(arguments).expect(2);
        assert!(outcome.stderr.starts_with("error: ") && outcome.stderr.contains("--help"), "{arguments:?}: {outcome:?}");
    }
}
