//! The programs that an image is made with, and who has them.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context;

use super::super::{
    boot::{one_line, programs::find},
    failure::Failure,
};

/// Programs, with Debian's packages.
const GRUB_MKIMAGE: (&str, &str) = ("grub-mkimage", "grub-common");
const XORRISO: (&str, &str) = ("xorriso", "xorriso");
const MFORMAT: (&str, &str) = ("mformat", "mtools");
const MMD: (&str, &str) = ("mmd", "mtools");
const MCOPY: (&str, &str) = ("mcopy", "mtools");
/// Modules of GRUB by platform, with Debian's packages.
const BIOS_MODULES: (&str, &str) = ("i386-pc", "grub-pc-bin");
const UEFI_MODULES: (&str, &str) = ("x86_64-efi", "grub-efi-amd64-bin");
const GRUB_DIRECTORY: &str = "/usr/lib/grub";

/// 1980-01-01, the first that FAT can express. All that has a date gets it, in seconds of Unix time.
pub(super) const DATE: &str = "315532800";

/// Where all of them are.
pub(super) struct Tools {
    grub_mkimage: PathBuf,
    xorriso: PathBuf,
    mformat: PathBuf,
    mmd: PathBuf,
    mcopy: PathBuf,
    bios_modules: PathBuf,
    uefi_modules: PathBuf,
}

impl Tools {
    /// Looks for all, so that one message names all that are missing.
    pub(super) fn find() -> Result<Self, Failure> {
        let mut missing = Missing::default();
        let tools = Self {
            grub_mkimage: missing.program(GRUB_MKIMAGE),
            xorriso: missing.program(XORRISO),
            mformat: missing.program(MFORMAT),
            mmd: missing.program(MMD),
            mcopy: missing.program(MCOPY),
            bios_modules: missing.modules(BIOS_MODULES),
            uefi_modules: missing.modules(UEFI_MODULES),
        };
        missing.tell().map(|()| tools)
    }

    /// Them in a directory, from which names of files are counted.
    pub(super) fn working_in<'a>(&'a self, directory: &'a Path) -> WorkingTools<'a> {
        WorkingTools { tools: self, directory }
    }
}

/// Programs that are started in a directory.
pub(super) struct WorkingTools<'a> {
    tools: &'a Tools,
    directory: &'a Path,
}

impl WorkingTools<'_> {
    pub(super) fn grub_mkimage(&self) -> Command {
        self.reproducible(&self.tools.grub_mkimage)
    }

    pub(super) fn xorriso(&self) -> Command {
        self.reproducible(&self.tools.xorriso)
    }

    pub(super) fn mformat(&self) -> Command {
        self.reproducible(&self.tools.mformat)
    }

    pub(super) fn mmd(&self) -> Command {
        self.reproducible(&self.tools.mmd)
    }

    pub(super) fn mcopy(&self) -> Command {
        self.reproducible(&self.tools.mcopy)
    }

    pub(super) fn bios_modules(&self) -> &Path {
        &self.tools.bios_modules
    }

    pub(super) fn uefi_modules(&self) -> &Path {
        &self.tools.uefi_modules
    }

    /// With nothing of this machine's in what it makes: neither its clock, nor the user's settings.
    fn reproducible(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(env::var_os("PATH").map(|path| ("PATH", path)));
        command.env("SOURCE_DATE_EPOCH", DATE).env("TZ", "UTC").env("LC_ALL", "C").env("MTOOLSRC", "/dev/null");
        command.current_dir(self.directory).stdin(Stdio::null());
        command
    }
}

/// Runs one to its end; what it says is in the error if it fails.
pub(super) fn run(command: &mut Command) -> Result<(), Failure> {
    let name = Path::new(command.get_program()).file_name().unwrap_or_default().display().to_string();
    let output = command.output().with_context(|| format!("cannot start {name}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::of_host(anyhow::anyhow!("{name} failed ({}): {}", output.status, one_line(said.trim()))))
}

/// What was looked for and is not there, with its packages.
#[derive(Default)]
pub(super) struct Missing {
    names: Vec<String>,
    packages: Vec<&'static str>,
}

impl Missing {
    pub(super) fn program(&mut self, (name, package): (&str, &'static str)) -> PathBuf {
        find(name).unwrap_or_else(|| self.lacks(name.into(), package))
    }

    /// The first of several files.
    pub(super) fn file(&mut self, paths: &[&str], package: &'static str) -> PathBuf {
        let found = paths.iter().map(PathBuf::from).find(|path| path.is_file());
        found.unwrap_or_else(|| self.lacks(paths.first().copied().unwrap_or_default().into(), package))
    }

    fn modules(&mut self, (platform, package): (&str, &'static str)) -> PathBuf {
        let directory = Path::new(GRUB_DIRECTORY).join(platform);
        if directory.is_dir() { directory } else { self.lacks(directory.display().to_string(), package) }
    }

    fn lacks(&mut self, name: String, package: &'static str) -> PathBuf {
        self.names.push(name);
        if !self.packages.contains(&package) {
            self.packages.push(package);
        }
        PathBuf::new()
    }

    pub(super) fn tell(self) -> Result<(), Failure> {
        if self.names.is_empty() {
            return Ok(());
        }
        let (names, packages) = (self.names.join(", "), self.packages.join(" "));
        Err(Failure::of_host(anyhow::anyhow!("missing here: {names}; on Debian: apt-get install {packages}")))
    }
}
