//! What a machine without this VMM cannot have is refused by name.

use crate::support::command::{payload, run};

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
