//! How an image is made: GRUB for both kinds of firmware, which load the kernel and the bundle from an ISO 9660 file system.
//!
//! `grub-mkrescue` makes such images, too, but puts the time of day into the loader that it makes, as the name of the file system to
//! look for. So this does what it does, with the same tools, and a name that comes from the contents. The modules of GRUB that are
//! needed are part of its two images, so that there are none to be found, and no menu.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{BufWriter, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Context;
use bytesize::ByteSize;

use super::{
    super::{
        boot::{self, load::Files},
        failure::Failure,
        guest::{flag_signals, shown},
        status,
    },
    tools::{self, Tools, WorkingTools},
};

/// What GRUB says last: what comes by the console behind it is the program's.
pub(super) const LAST_WORDS: &str = "mote: starting";

/// Modules of GRUB for either firmware: disks and what is on them, loading, and a few commands for who is left at its prompt.
const MODULES: [&str; 11] =
    ["iso9660", "part_gpt", "part_msdos", "search", "search_fs_file", "multiboot2", "boot", "echo", "ls", "reboot", "minicmd"];
/// Access to disks by the BIOS.
const BIOS_MODULE: &str = "biosdisk";
/// Files in the directory where an image is made. The tools work there, and are given no other names: to each of them some character
/// means something that can be in the name of a directory, as `@@` does to mtools.
const COMMANDS: &str = "commands";
const CORE: &str = "core";
const UEFI_PROGRAM: &str = "BOOTX64.EFI";
const ROOT: &str = "root";
const FAT_IMAGE: &str = "root/efi.img";
const IMAGE: &str = "image";
/// Capacity of file systems that `mformat` knows by their KiB, and what of it is left for files.
const FAT_SIZES: [(&str, u64); 2] = [("1440", 1_400_000), ("2880", 2_800_000)];

/// Names and sizes of what an image consists of.
pub(super) type Parts = Vec<(&'static str, u64)>;

/// Makes the image in a directory beside it, from where it takes its place when it is whole.
pub(super) fn build(tools: &Tools, files: &Files, command_line: &str, output: &Path) -> Result<Parts, Failure> {
    let signals = Interrupts::catch()?;
    let output = &behind_links(output)?;
    let directory = match output.parent() {
        Some(directory) if directory != Path::new("") => directory,
        _ => Path::new("."),
    };
    if output.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        return Err(Failure::of_host(anyhow::anyhow!(
            "{} is no regular file: write the image to one, then copy it",
            shown(output)
        )));
    }
    let work = tempfile::Builder::new().prefix(".mote-image-").tempdir_in(directory);
    let work = work.with_context(|| format!("cannot write {}, which is made in a directory beside it", shown(output)))?;
    let tools = tools.working_in(work.path());
    let contents = Contents::write(work.path(), files, command_line)?;
    let bios = signals.unless_any(bios_loader(&tools, &contents))?;
    let uefi = signals.unless_any(uefi_loader(&tools, &contents))?;
    signals.unless_any(join(&tools, &contents))?;
    let image = contents.work.join(IMAGE);
    let image_bytes = size(&image)?;
    put_in_place(&image, output)?;

    let module = files.module.len() as u64;
    let ramdisk = files.ramdisk.as_ref().map_or(0, Vec::len) as u64;
    let kernel = files.kernel.len() as u64;
    let bundle = size(&contents.root.join("boot/bundle"))?;
    let rest = image_bytes.saturating_sub(kernel + bundle + bios + uefi);
    Ok(vec![
        ("kernel", kernel),
        ("module", module),
        ("ramdisk", ramdisk),
        ("command line, padding", bundle.saturating_sub(module + ramdisk)),
        ("GRUB for BIOS", bios),
        ("GRUB for UEFI", uefi),
        ("file systems, partition table", rest),
        ("image", image_bytes),
    ])
}

/// The file that a symbolic link leads to: the link stays.
fn behind_links(output: &Path) -> Result<PathBuf, Failure> {
    if output.is_symlink() {
        let target = output.canonicalize();
        return Ok(target.with_context(|| format!("cannot write {}: the symbolic link leads nowhere", shown(output)))?);
    }
    Ok(output.into())
}

/// For people.
pub(super) fn table(parts: &Parts) -> String {
    let mut text = String::new();
    for (name, bytes) in parts {
        // Writing to a string cannot fail.
        let _written = writeln!(text, "{name:<30}{bytes:>12}  {}", ByteSize::b(*bytes));
    }
    text
}

/// The directory that becomes the file system, beside it what its loaders are told.
struct Contents {
    work: PathBuf,
    root: PathBuf,
    /// Of all that is booted.
    digest: blake3::Hash,
}

impl Contents {
    fn write(work: &Path, files: &Files, command_line: &str) -> Result<Self, Failure> {
        let root = work.join(ROOT);
        fs::create_dir_all(root.join("boot/grub")).context("cannot make a directory")?;
        let mut bundle = Vec::new();
        boot::write_bundle(files, command_line, &mut bundle).context("cannot make the bundle")?;
        let digest = blake3::Hasher::new().update(&files.kernel).update(&bundle).finalize();
        // Another disk of the machine may be one of ours, too.
        let name = digest.to_hex().chars().take(16).collect::<String>();
        let commands = format!(
            "search --no-floppy --file --set=root /boot/{name}\nset gfxpayload=text\nmultiboot2 /boot/mote-kernel\nmodule2 \
             /boot/bundle bundle\necho \"{LAST_WORDS}\"\nboot\n"
        );
        let contents = Self { work: work.into(), root, digest };
        for (path, bytes) in [
            (contents.root.join("boot/mote-kernel"), &*files.kernel),
            (contents.root.join("boot/bundle"), &bundle),
            (contents.root.join("boot").join(name), b""),
            (contents.work.join(COMMANDS), commands.as_bytes()),
        ] {
            write(&path, bytes)?;
        }
        Ok(contents)
    }

    /// A part of the digest as number, in hexadecimal digits.
    fn serial(&self, digits: usize) -> String {
        self.digest.to_hex().chars().rev().take(digits).collect()
    }

    /// A GUID that says that it is made up (RFC 9562, version 8).
    fn guid(&self) -> String {
        let text = self.serial(32);
        let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
        format!("{}-{}-8{}-8{}-{}", part(0, 8), part(8, 12), part(13, 16), part(17, 20), part(20, 32))
    }
}

/// What a BIOS starts: from the file system, or from a disk by the first sector. Its size.
fn bios_loader(tools: &WorkingTools<'_>, contents: &Contents) -> Result<u64, Failure> {
    let mut mkimage = tools.grub_mkimage();
    mkimage.args(["--format", "i386-pc", "--prefix", "/boot/grub", "--config", COMMANDS]);
    mkimage.arg("--directory").arg(tools.bios_modules()).args(["--output", CORE]).args(MODULES).arg(BIOS_MODULE);
    tools::run(&mut mkimage)?;
    let first = read(&tools.bios_modules().join("cdboot.img"))?;
    let loader = [first, read(&contents.work.join(CORE))?].concat();
    write(&contents.root.join("boot/grub/bios.img"), &loader)?;
    Ok(loader.len() as u64)
}

/// What UEFI starts: a program in a FAT file system. The size of that.
fn uefi_loader(tools: &WorkingTools<'_>, contents: &Contents) -> Result<u64, Failure> {
    let mut mkimage = tools.grub_mkimage();
    mkimage.args(["--format", "x86_64-efi", "--prefix", "/boot/grub", "--config", COMMANDS]);
    mkimage.arg("--directory").arg(tools.uefi_modules()).args(["--output", UEFI_PROGRAM]).args(MODULES);
    tools::run(&mut mkimage)?;
    let bytes = size(&contents.work.join(UEFI_PROGRAM))?;
    let fits = FAT_SIZES.iter().find(|(_, room)| bytes <= *room);
    let (kib, _) = fits.ok_or_else(|| Failure::of_host(anyhow::anyhow!("GRUB for UEFI is too large: {bytes} bytes")))?;
    let serial = contents.serial(8);
    tools::run(tools.mformat().args(["-C", "-f", kib, "-N", &serial, "-v", "MOTE", "-i", FAT_IMAGE, "::"]))?;
    tools::run(tools.mmd().args(["-i", FAT_IMAGE, "::/EFI", "::/EFI/BOOT"]))?;
    tools::run(tools.mcopy().args(["-i", FAT_IMAGE, UEFI_PROGRAM, "::/EFI/BOOT/BOOTX64.EFI"]))?;
    size(&contents.work.join(FAT_IMAGE))
}

/// The file system with both loaders, so that it boots as a disk: with GRUB's first sector, and a partition for UEFI.
fn join(tools: &WorkingTools<'_>, contents: &Contents) -> Result<(), Failure> {
    let mut xorriso = tools.xorriso();
    xorriso.args(["-no_rc", "-as", "mkisofs", "-quiet", "-volid", "MOTE", "-rational-rock"]);
    xorriso.args(["-b", "boot/grub/bios.img", "-no-emul-boot", "-boot-load-size", "4", "-boot-info-table"]);
    xorriso.args(["--grub2-boot-info", "--grub2-mbr"]).arg(tools.bios_modules().join("boot_hybrid.img"));
    xorriso.args(["--efi-boot", "efi.img", "-efi-boot-part", "--efi-boot-image", "--protective-msdos-label"]);
    xorriso.arg("--set_all_file_dates").arg(format!("={}", tools::DATE));
    // Without graft points it takes a backslash in the name of its own directory for an escape.
    xorriso.args(["--gpt_disk_guid", &contents.guid(), "-o", IMAGE, "-graft-points", &format!("/={ROOT}")]);
    tools::run(&mut xorriso)
}

/// Whoever looks at the file sees what was there, or all of it, on the disk.
fn put_in_place(image: &Path, output: &Path) -> Result<(), Failure> {
    let placed = File::open(image).and_then(|file| file.sync_all()).and_then(|()| fs::rename(image, output));
    Ok(placed.with_context(|| format!("cannot write {}", shown(output)))?)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    Ok(fs::read(path).with_context(|| format!("cannot read {}", shown(path)))?)
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let written = File::create(path).map(BufWriter::new).and_then(|mut file| file.write_all(bytes).and_then(|()| file.flush()));
    // What the file system keeps of it.
    let written = written.and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o644)));
    Ok(written.with_context(|| format!("cannot write {}", shown(path)))?)
}

fn size(path: &Path) -> Result<u64, Failure> {
    Ok(path.metadata().with_context(|| format!("cannot find {}", shown(path)))?.len())
}

/// Signals that ask this process to end: it does so between two tools, and removes what it has made.
struct Interrupts(Arc<AtomicBool>);

impl Interrupts {
    fn catch() -> Result<Self, Failure> {
        let flag = Arc::new(AtomicBool::new(false));
        flag_signals(&flag)?;
        Ok(Self(flag))
    }

    /// The result, unless there was one: a tool that got it as well has failed for no other reason.
    fn unless_any<T>(&self, result: Result<T, Failure>) -> Result<T, Failure> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(Failure { status: status::INTERRUPTED, error: anyhow::anyhow!("stopped: interrupted by a signal") }),
            false => result,
        }
    }
}
