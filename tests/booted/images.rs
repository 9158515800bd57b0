//! Disk images: the same bytes each time, and they boot by either firmware.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use crate::support::{
    command::{Outcome, finish, mote, payload, run},
    qemu,
};

/// The largest that an image for hello world may be.
const MOST_BYTES: u64 = 16 << 20;

fn make(name: &str, image: &Path, options: &[&str]) -> Outcome {
    let options = [&["-o", image.to_str().unwrap()], options].concat();
    run(qemu::line("image", &options, &payload(name), &[]))
}

fn verify(image: &Path, options: &[&str]) -> Outcome {
    run([&["image", "--verify", image.to_str().unwrap()], options].concat())
}

#[test]
fn an_image_boots_by_bios_and_by_uefi() {
    if !qemu::images_usable() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("an, image.img");
    let made = make("hello.wat", &image, &[]).expect(0);
    assert_eq!(made.stderr, "");
    let bytes = image.metadata().unwrap().len();
    assert!(bytes <= MOST_BYTES, "{bytes}");
    // Its parts are all of it, but for what is in another one.
    let sizes: Vec<u64> = made.text().lines().map(|line| line[30..42].trim().parse().unwrap()).collect();
    let (image_bytes, parts) = sizes.split_last().unwrap();
    assert_eq!((*image_bytes, parts.iter().sum::<u64>()), (bytes, bytes), "{made:?}");

    let before = fs::read(&image).unwrap();
    let report = "BIOS: the program ended with status 0; it printed:\nHello from a micro VM!\r\nUEFI: the program ended with \
                  status 0; it printed:\nHello from a micro VM!\r\n";
    verify(&image, &[]).expect_output(report);
    assert!(fs::read(&image).unwrap() == before, "the image was written to");
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    if !qemu::images_usable() {
        return;
    }
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let image = |directory: &Path| directory.join("disk.img");
    let build = |directory: &Path, options: &[&str]| -> Vec<u8> {
        make("hello.wat", &image(directory), options).expect(0);
        fs::read(image(directory)).unwrap()
    };
    let first = build(one.path(), &[]);
    // So that a time of day shows.
    thread::sleep(Duration::from_millis(2100));
    assert!(build(other.path(), &[]) == first, "another time and place make another image");
    assert!(build(other.path(), &["--cmdline", "exit=reboot"]) != first, "what differs makes no difference");
    // Nothing else is left there.
    let names: Vec<PathBuf> = fs::read_dir(other.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(names, [image(other.path())]);
}

/// Names that mean something to one of the tools, and to this one.
#[test]
fn odd_directories_are_taken_as_they_are() {
    if !qemu::images_usable() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    make("hello.wat", &at("plain.img"), &[]).expect(0);
    let expected = fs::read(at("plain.img")).unwrap();
    // What mtools would take for the first one's name, and an offset.
    fs::write(at("doc"), "precious").unwrap();
    for odd in ["doc@@0", "back\\slash, \n and = line"] {
        fs::create_dir(at(odd)).unwrap();
        let image = at(odd).join("disk.img");
        make("hello.wat", &image, &[]).expect(0);
        assert!(fs::read(&image).unwrap() == expected, "another place makes another image");
        assert_eq!(fs::read_dir(at(odd)).unwrap().count(), 1);
    }
    assert_eq!(fs::read(at("doc")).unwrap(), b"precious");

    // A link stays one.
    let link = at("link.img");
    symlink("plain.img", &link).unwrap();
    make("hello.wat", &link, &["--cmdline", "exit=reboot"]).expect(0);
    assert!(link.is_symlink() && fs::read(at("plain.img")).unwrap() != expected);
    symlink("nowhere", at("dangling.img")).unwrap();
    make("hello.wat", &at("dangling.img"), &[]).complains(125, "leads nowhere");
    make("hello.wat", &at("none/disk.img"), &[]).complains(125, "none/disk.img");
}

#[test]
fn a_program_that_does_not_end_well_fails_the_trial() {
    if !qemu::images_usable() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("disk.img");
    make("trap-after-print.wat", &image, &["--no-terminal"]).expect(0);
    let outcome = verify(&image, &["--firmware", "bios"]).complains(125, "wasm trap: ");
    assert_eq!(outcome.text(), "BIOS: it did not end as it should; it printed:\nprinted before the trap\n");

    make("exit.wat", &image, &[]).expect(0);
    let report = "BIOS: the program ended with status 42; it printed:\nmote: the program ended with status 42\r\n";
    verify(&image, &["--firmware", "bios"]).expect_output(report);

    // Nothing that boots.
    fs::write(&image, [0; 1 << 20]).unwrap();
    verify(&image, &["--firmware", "bios", "--timeout", "2s"]).complains(125, "the kernel did not start");
    verify(&directory.path().join("no.img"), &[]).complains(125, "No such file");
}

#[test]
fn what_is_missing_is_named_with_its_package() {
    let empty = tempfile::tempdir().unwrap();
    let without_programs = |arguments: &[&str]| finish(mote(arguments).env("PATH", empty.path()).spawn().unwrap());
    let (module, image) = (payload("hello.wat"), empty.path().join("disk.img"));
    let outcome = without_programs(&["image", "-o", image.to_str().unwrap(), module.to_str().unwrap()]);
    let mut outcome = outcome.complains(125, "missing here: grub-mkimage, xorriso, mformat, mmd, mcopy");
    for package in ["grub-common", "xorriso", "mtools"] {
        outcome = outcome.complains(125, package);
    }
    assert!(!image.exists());
    without_programs(&["image", "--verify", module.to_str().unwrap()]).complains(125, "apt-get install qemu-system-x86");
    without_programs(&["qemu", module.to_str().unwrap()]).complains(125, "qemu-system-x86");
}
