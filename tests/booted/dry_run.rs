//! The command that `--dry-run` prints does what `mote qemu` does.

use std::{
    fs,
    process::{Command, Stdio},
};

use mote_vmm::{Ending, Record, RecordReader};

use crate::support::{command::run, qemu};

#[test]
fn the_command_works_when_it_is_pasted() {
    let directory = tempfile::tempdir().unwrap();
    // As bad for a shell, and for QEMU, as a name can be.
    let keep = directory.path().join("it's, a \"directory\"");
    let options = ["--dry-run", "--keep", keep.to_str().unwrap(), "--env", "A=$HOME 'b'"];
    let outcome = run(qemu::payload_line(&options, "args.wat", &["a b", "\"c\"", "it's"])).expect(0);
    assert!(outcome.stderr.contains("directory"), "{outcome:?}");
    assert_eq!(outcome.text().lines().count(), 1);
    assert!(!keep.join("records").exists(), "it was run");
    if !qemu::usable() {
        return;
    }

    let mut shell = Command::new("sh");
    shell.arg("-c").arg(outcome.text()).stdin(Stdio::null()).current_dir("/");
    let result = shell.output().unwrap();
    assert_eq!(String::from_utf8_lossy(&result.stderr), "");
    assert_eq!(String::from_utf8_lossy(&result.stdout), "args.wat\na b\n\"c\"\nit's\n");
    // It ends by QEMU's debug exit: never 0.
    assert!(result.status.code().is_some_and(|status| status & 1 == 1), "{:?}", result.status);

    let mut reader = RecordReader::new();
    reader.push(&fs::read(keep.join("records")).unwrap());
    reader.end();
    let records: Vec<_> = std::iter::from_fn(|| reader.next_record()).collect();
    let [Record::Started(_), Record::Ended(end)] = records.as_slice() else { panic!("{records:?}") };
    assert!(matches!(end.ending, Ending::Exited(0)), "{end:?}");
}

#[test]
fn files_are_kept_where_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let outcome = crate::support::command::finish(
        crate::support::command::mote(qemu::payload_line(&["--dry-run", "--gdb"], "hello.wat", &[]))
            .env("TMPDIR", directory.path())
            .spawn()
            .unwrap(),
    )
    .expect(0);
    let kept = fs::read_dir(directory.path()).unwrap().next().unwrap().unwrap().path();
    assert!(kept.join("kernel").is_file() && kept.join("bundle").is_file());
    assert!(outcome.stderr.contains(kept.to_str().unwrap()), "{outcome:?}");
    assert!(outcome.text().contains("-gdb tcp:localhost:1234 -S"), "{outcome:?}");
}
