//! Snapshots: sandboxes at rest, to go back to, to copy, and to keep in files.

mod file;
mod load;
mod metadata;
mod save;

use std::{fmt, path::Path, sync::Arc};

use super::{
    InstanceState, Sandbox,
    builder::{CallLimits, CopyBuilder},
    error::{SandboxState, SnapshotError},
    host::HostFunctions,
    hypervisor::Hypervisor,
};
use crate::{directory::Directory, engine::Engine, machine::MachineImage};

pub(crate) use file::MAGIC;
pub use load::{LoadError, LoadOptions, SnapshotInfo};

/// A sandbox as it was at a moment when it did nothing. Clones are the same snapshot.
///
/// What is in it: all of guest RAM, so the state of all instances, of the interpreter and of WASI, with the numbers of its
/// descriptors. What is not: standard streams, which each copy gets anew; host functions and directories, which copies in this
/// process have unless they are given others, and copies from a file are given; files and sockets that the program had open,
/// because of which no snapshot is taken at all.
///
/// Each copy has random numbers of its own from then on (not those that the program drew before, which all copies share), and
/// its clocks go on: real time is the host's, monotonic time never goes back.
///
/// A copy goes on with what the program was told of its streams before, as that one is a terminal. What closures of host
/// functions hold is shared by all copies and does not go back. Functions that were not called before the snapshot are translated
/// again in each copy and after each restore, unless they were translated when the module was loaded
/// ([`Translation::Eager`](crate::Translation::Eager)). Deadline and fuel of a call are those of the sandbox, and of a snapshot
/// from a file those that the file has.
#[derive(Clone)]
pub struct Snapshot(Arc<Inner>);

/// See [`Snapshot`].
pub(super) struct Inner {
    pub(super) image: Arc<MachineImage>,
    pub(super) hypervisor: Arc<Hypervisor>,
    /// For modules that copies instantiate later.
    pub(super) engine: Engine,
    /// Those of the sandbox; none if it comes from a file.
    pub(super) functions: Arc<HostFunctions>,
    /// Module, name and signature of the functions that the guest knows, in its order.
    pub(super) needed_functions: Vec<[String; 3]>,
    pub(super) instances: Vec<InstanceState>,
    /// Those of the sandbox; none if it comes from a file.
    pub(super) directories: Arc<Vec<Directory>>,
    pub(super) directory_names: Vec<String>,
    pub(super) limits: CallLimits,
    pub(super) state: SandboxState,
}

impl Inner {
    /// Whether the functions are those that the guest knows.
    pub(super) fn has_functions(&self) -> bool {
        self.functions.as_slice().len() == self.needed_functions.len()
    }

    /// The pages that the first copy wrote in its first call.
    pub(super) fn working_set(&self) -> &[std::ops::Range<u64>] {
        self.image.working_set.get().map_or(&[], Vec::as_slice)
    }
}

impl Snapshot {
    /// Begins to make a copy.
    pub fn sandbox(&self) -> CopyBuilder {
        CopyBuilder::new(self)
    }

    /// Saves it to a file, for another process, another day, or another machine with the same kernel image. The file is written
    /// beside `path` first, and takes its place when it is whole.
    pub fn save(&self, path: &Path) -> std::io::Result<()> {
        save::save(&self.0, path)
    }

    /// Opens a file. It is mapped, not read, and must not change while copies are made and run.
    ///
    /// Header and metadata are checked now; of the pages only what [`Snapshot::verify`] does, which reads them all. A file that
    /// somebody made to do harm can put anything into the guest's RAM; it has no more power than a module has. But its size of
    /// RAM, its deadline and its fuel are what the file says: look at [`Snapshot::ram_bytes`], and give copies of a file that you
    /// do not trust a deadline of your own ([`CopyBuilder::deadline`]).
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        Self::load_with(path, &LoadOptions::default())
    }

    /// The same in another way than the ordinary one.
    pub fn load_with(path: &Path, options: &LoadOptions) -> Result<Self, LoadError> {
        load::load(path, options)
    }

    /// Whether this is a regular file that begins as snapshots do; nothing else of it is looked at.
    pub fn is_snapshot(path: &Path) -> bool {
        load::is_snapshot(path)
    }

    /// Reads a whole file and checks each byte of it against its digests.
    pub fn verify(path: &Path) -> Result<SnapshotInfo, LoadError> {
        load::verify(path)
    }

    /// Whether copies wait for standard input in the middle of a call: [`Sandbox::resume`] goes on with it.
    pub fn is_at_input(&self) -> bool {
        self.0.state == SandboxState::AtInput
    }

    /// Whether copies count fuel, so that they can be given some.
    pub fn counts_fuel(&self) -> bool {
        self.0.limits.fuel.is_some()
    }

    /// RAM that its files hold, those of snapshots that it is based on included, in bytes.
    pub fn stored_bytes(&self) -> u64 {
        self.0.image.ram.segments().iter().map(|segment| segment.bytes).sum()
    }

    /// Guest RAM of each copy, in bytes.
    pub fn ram_bytes(&self) -> u64 {
        self.0.image.ram_bytes
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.0
    }

    pub(super) fn limits(&self) -> CallLimits {
        self.0.limits
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("state", &self.0.state)
            .field("ram_bytes", &self.ram_bytes())
            .field("stored_bytes", &self.stored_bytes())
            .finish_non_exhaustive()
    }
}

impl Sandbox {
    /// Takes a snapshot. From then on this sandbox shares the snapshot's pages, too.
    ///
    /// That is done at a quiet point: the sandbox is ready, or waits for standard input. Descriptors of the host must be closed
    /// but for the directories that the program was given.
    pub fn snapshot(&mut self) -> Result<Snapshot, SnapshotError> {
        let _span = tracing::debug_span!("snapshot").entered();
        if let SandboxState::Poisoned(_) = self.state {
            return Err(SnapshotError::NotQuiet(self.state));
        }
        match self.machine.files.unsaved() {
            0 => {}
            open => return Err(SnapshotError::OpenFiles(open)),
        }
        let base = self.base.as_ref().map(|base| &base.ram);
        let image = Arc::new(self.machine.capture(self.hypervisor.page_map()?, base)?);
        // If that fails half-way, RAM shares neither image, and only mapping all of it anew helps.
        let state = std::mem::replace(&mut self.state, SandboxState::Poisoned(super::Poison::Fault));
        self.base = None;
        self.machine.share(&image)?;
        (self.state, self.base) = (state, Some(Arc::clone(&image)));
        self.idle.clear();
        self.counters.snapshots += 1;
        let strings = self.functions.strings();
        let needed_functions = strings.as_chunks::<3>().0.to_vec();
        Ok(Snapshot(Arc::new(Inner {
            image,
            hypervisor: Arc::clone(&self.hypervisor),
            engine: self.engine.clone(),
            functions: Arc::clone(&self.functions),
            needed_functions,
            instances: self.instances.clone(),
            directory_names: self.directories.iter().map(|directory| directory.guest.clone()).collect(),
            directories: Arc::clone(&self.directories),
            limits: self.limits,
            state: self.state,
        })))
    }

    /// Goes back to a snapshot, whatever state the sandbox is in: poison is gone then, and nothing that happened since can be
    /// seen by the guest. Costs time in proportion to what was written since, if the snapshot is the one that the sandbox was
    /// made from or went back to last; for any other that fits all of RAM is mapped anew.
    ///
    /// Standard streams, host functions, deadline and fuel stay those of the sandbox. Files that the program opened are closed.
    pub fn restore(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        let _span = tracing::debug_span!("restore").entered();
        let inner = snapshot.inner();
        self.check_fits(inner)?;
        let shares = self.base.as_ref().is_some_and(|base| Arc::ptr_eq(base, &inner.image));
        self.state = SandboxState::Poisoned(super::Poison::Fault);
        self.base = None;
        let page_map = self.hypervisor.page_map()?;
        let restored = self.machine.restore(page_map, &inner.image, shares, &mut self.idle)?;
        self.base = Some(Arc::clone(&inner.image));
        self.instances.clone_from(&inner.instances);
        self.state = inner.state;
        self.fuel_consumed = 0;
        self.counters.restores += 1;
        self.counters.restored_pages += restored.copied_pages;
        self.counters.dropped_pages += restored.dropped_pages;
        tracing::trace!(?restored, shares, "restored");
        Ok(())
    }

    fn check_fits(&self, inner: &Inner) -> Result<(), SnapshotError> {
        let functions = self.functions.strings();
        if !self.machine.fits(&inner.image) {
            return Err(SnapshotError::Other("it was taken with another kernel, ramdisk or size of RAM"));
        }
        if !inner.needed_functions.iter().flatten().eq(&functions) {
            return Err(SnapshotError::Other("it was taken with other host functions"));
        }
        if self.limits.fuel.is_some() != inner.limits.fuel.is_some() {
            return Err(SnapshotError::Other("one of both counts fuel, the other does not"));
        }
        let names = self.directories.iter().map(|directory| &directory.guest);
        if !names.eq(&inner.directory_names) {
            return Err(SnapshotError::Other("it was taken with other directories"));
        }
        Ok(())
    }
}
