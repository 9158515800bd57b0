//! Artifacts that are kept between processes, in a directory of the user's own.
//!
//! An entry is named by a digest of all that its code depends on: the module, the build of the compiler, fuel, features of the
//! processor. It is written under another name, brought to disk, and renamed, so whoever finds one finds all of it, also after
//! the machine lost its power, and any number of processes can read and write at the same time. Behind the artifact stand its
//! length and a digest of its two ends, where the headers are: enough to notice a file that was cut off or is another one. A
//! digest of everything would be read at each start, which maps the file to avoid just that; who can change a file in the
//! middle is its owner, and could as well replace `mote`.
//!
//! An artifact that was taken out stays usable when its entry is removed, as it is an open file.

use std::{
    env,
    ffi::OsString,
    fmt,
    fs::{DirBuilder, File},
    io::{self, Write},
    ops::ControlFlow,
    os::{
        fd::OwnedFd,
        unix::{
            ffi::OsStringExt,
            fs::{DirBuilderExt, FileExt, MetadataExt},
        },
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, Timespec, Timestamps};
use thiserror::Error;

use super::{Artifact, CompileError, CompileOptions, CompileProgress, WASMTIME_VERSION, compile, program};

/// Of the names of entries.
const SUFFIX: &str = ".cwasm";
/// Of the names of files that are being written.
const UNFINISHED: &str = ".new-";
/// From this age on, who was writing it has gone.
const ABANDONED_AFTER: Duration = Duration::from_secs(3600);
/// Bits of a mode that let others write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Why there is no cache, or it did not do something.
#[derive(Debug, Error)]
pub enum CacheError {
    /// Nothing says where it would be.
    #[error("there is no directory for a cache: neither XDG_CACHE_HOME nor HOME is set to an absolute path")]
    NoPlace,
    /// Somebody else could put code there.
    #[error("the cache {} is not used: {what}; it must belong to you, and nobody else may write to it (chmod 700)", path.display())]
    NotPrivate {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// The host refused something.
    #[error("cannot {what} in the cache {}: {source}", path.display())]
    Failed {
        /// What was tried.
        what: &'static str,
        /// The directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// What an artifact is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheKey(blake3::Hash);

impl CacheKey {
    /// For the code of a module, in binary or text format, compiled in this way by this build of mote.
    pub fn new(module: &[u8], options: &CompileOptions) -> Self {
        let mut hasher = blake3::Hasher::new();
        let features = options.cpu_features().names().collect::<Vec<_>>().join(",");
        for part in [WASMTIME_VERSION, program::IDENTITY, &features, if options.fuel { "fuel" } else { "" }] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        Self(hasher.update(module).finalize())
    }

    fn file_name(self) -> String {
        format!("{self}{SUFFIX}")
    }
}

/// As the file of its entry is called, without the suffix.
impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_hex())
    }
}

/// One artifact that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheEntry {
    /// Its key, as text.
    pub key: String,
    /// What it takes of the disk.
    pub bytes: u64,
    /// When it was last taken out, or put in.
    pub used: SystemTime,
}

/// A directory of artifacts.
#[derive(Debug)]
pub struct ArtifactCache {
    directory: OwnedFd,
    path: PathBuf,
    max_bytes: u64,
}

impl ArtifactCache {
    /// As much as is kept unless something else is said: 4 GiB.
    pub const DEFAULT_MAX_BYTES: u64 = 4 << 30;

    /// The cache of this user: `mote` in `$XDG_CACHE_HOME`, or in `~/.cache`.
    pub fn open_default() -> Result<Self, CacheError> {
        Self::open(&Self::default_path()?, Self::DEFAULT_MAX_BYTES)
    }

    /// Where that is.
    pub fn default_path() -> Result<PathBuf, CacheError> {
        let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
        base.map(|base| base.join("mote")).ok_or(CacheError::NoPlace)
    }

    /// A cache in a directory, which is made if it is not there, and which keeps at most `max_bytes`. Those that were not used
    /// for longest are removed first.
    pub fn open(path: &Path, max_bytes: u64) -> Result<Self, CacheError> {
        let failed = |what| move |source| CacheError::Failed { what, path: path.into(), source };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed("make the directory above"))?;
        }
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed("make the directory")(error)),
            _ => {}
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|error| failed("open the directory")(error.into()))?;
        // Of what was opened, whatever becomes of its name.
        let status = rustix::fs::fstat(&directory).map_err(|error| failed("look at the directory")(error.into()))?;
        let not_private = |what| Err(CacheError::NotPrivate { path: path.into(), what });
        if status.st_uid != rustix::process::geteuid().as_raw() {
            return not_private("it belongs to another user");
        }
        if status.st_mode & WRITABLE_BY_OTHERS != 0 {
            return not_private("others may write to it");
        }
        Ok(Self { directory, path: path.into(), max_bytes })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The artifact of a module, compiled if it is not there. What the cache cannot keep is compiled all the same.
    pub fn get_or_compile(
        &self,
        module: &[u8],
        options: &CompileOptions,
        observer: impl FnMut(CompileProgress) -> ControlFlow<()>,
    ) -> Result<Artifact, CompileError> {
        self.get_or_make(&CacheKey::new(module, options), || compile(module, options, observer))
    }

    /// The same for who compiles in another way.
    pub fn get_or_make<E>(&self, key: &CacheKey, make: impl FnOnce() -> Result<Artifact, E>) -> Result<Artifact, E> {
        match self.get(key) {
            Ok(Some(artifact)) => return Ok(artifact),
            Ok(None) => {}
            Err(error) => tracing::warn!("{error}"),
        }
        let artifact = make()?;
        Ok(self.insert(key, &artifact).unwrap_or_else(|error| {
            tracing::warn!("{error}");
            artifact
        }))
    }

    /// What is kept for a key. One that is damaged is removed, and is as if it had not been there.
    pub fn get(&self, key: &CacheKey) -> Result<Option<Artifact>, CacheError> {
        let name = key.file_name();
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.directory, &*name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(error) => return Err(self.failed("open an artifact")(error.into())),
        };
        let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        // It only is removed sooner without.
        let _renewed = rustix::fs::futimens(&file, &Timestamps { last_access: now, last_modification: now });
        match whole(file) {
            Some(artifact) => Ok(Some(artifact)),
            None => {
                tracing::warn!("{} in the cache {} is damaged, and removed", name, self.path.display());
                self.remove(&name)?;
                Ok(None)
            }
        }
    }

    /// Keeps an artifact; the same, but out of the cache instead of memory. One that is larger than all that may be kept comes
    /// back as it is.
    pub fn insert(&self, key: &CacheKey, artifact: &Artifact) -> Result<Artifact, CacheError> {
        if artifact.bytes().saturating_add(Trailer::BYTES as u64) > self.max_bytes {
            return Ok(artifact.clone());
        }
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let unfinished = format!("{UNFINISHED}{key}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let kept = self.write(&unfinished, &key.file_name(), artifact).inspect_err(|_| {
            let _nothing_there = self.remove(&unfinished);
        })?;
        self.shrink(self.max_bytes, Some(&key.to_string()))?;
        Ok(kept)
    }

    fn write(&self, unfinished: &str, name: &str, artifact: &Artifact) -> Result<Artifact, CacheError> {
        let errno = |what| move |error: rustix::io::Errno| self.failed(what)(error.into());
        // A process with this number may have died in the middle.
        self.remove(unfinished)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, unfinished, flags, Mode::RUSR | Mode::WUSR);
        let mut file = File::from(file.map_err(errno("make a file"))?);
        let copied = artifact.write_to(&mut file).and_then(|()| {
            file.write_all(&Trailer::of(artifact)?.to_bytes())?;
            // Without it the name could be on disk before the contents. It takes a small part of what compiling took.
            file.sync_data()
        });
        copied.map_err(self.failed("write an artifact"))?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let reader = rustix::fs::openat(&self.directory, unfinished, flags, Mode::empty()).map_err(errno("open an artifact"))?;
        rustix::fs::renameat(&self.directory, unfinished, &self.directory, name).map_err(errno("name an artifact"))?;
        whole(File::from(reader)).ok_or_else(|| self.failed("read an artifact")(io::ErrorKind::InvalidData.into()))
    }

    /// All that is kept, what was used last first.
    pub fn list(&self) -> Result<Vec<CacheEntry>, CacheError> {
        let files = self.files()?;
        let mut entries: Vec<_> = files.into_iter().filter_map(CachedFile::entry).collect();
        entries.sort_by(|one, other| other.used.cmp(&one.used).then_with(|| one.key.cmp(&other.key)));
        Ok(entries)
    }

    /// Removes everything, files that are being written but not included. How many artifacts there were, and their bytes.
    pub fn clear(&self) -> Result<(usize, u64), CacheError> {
        let removed = self.shrink(0, None)?;
        Ok((removed.len(), removed.iter().map(|entry| entry.bytes).sum()))
    }

    /// Removes what was not used for longest until no more than `max_bytes` are there, but never `keep`. And what others left
    /// unfinished.
    fn shrink(&self, max_bytes: u64, keep: Option<&str>) -> Result<Vec<CacheEntry>, CacheError> {
        let now = SystemTime::now();
        let (unfinished, files): (Vec<_>, Vec<_>) = self.files()?.into_iter().partition(|file| file.name.starts_with(UNFINISHED));
        let is_abandoned = |file: &&CachedFile| now.duration_since(file.used).is_ok_and(|age| age > ABANDONED_AFTER);
        unfinished.iter().filter(is_abandoned).try_for_each(|file| self.remove(&file.name))?;
        let mut entries: Vec<_> = files.into_iter().filter_map(CachedFile::entry).collect();
        entries.sort_by_key(|entry| entry.used);
        let mut total: u64 = entries.iter().map(|entry| entry.bytes).sum();
        let mut removed = Vec::new();
        for entry in entries {
            if total <= max_bytes {
                break;
            }
            if keep != Some(&*entry.key) {
                self.remove(&format!("{}{SUFFIX}", entry.key))?;
                total -= entry.bytes;
                removed.push(entry);
            }
        }
        Ok(removed)
    }

    /// Whether nothing is kept; quicker to be told than a key.
    pub fn is_empty(&self) -> Result<bool, CacheError> {
        let failed = |error: rustix::io::Errno| self.failed("list the directory")(error.into());
        for entry in Dir::read_from(&self.directory).map_err(failed)? {
            if entry.map_err(failed)?.file_name().to_bytes().ends_with(SUFFIX.as_bytes()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Regular files that are named as one of this cache.
    fn files(&self) -> Result<Vec<CachedFile>, CacheError> {
        let failed = |error: rustix::io::Errno| self.failed("list the directory")(error.into());
        let mut files = Vec::new();
        for entry in Dir::read_from(&self.directory).map_err(failed)? {
            let name = OsString::from_vec(entry.map_err(failed)?.file_name().to_bytes().to_vec());
            let Ok(name) = name.into_string() else { continue };
            if !name.starts_with(UNFINISHED) && !name.ends_with(SUFFIX) {
                continue;
            }
            let status = match rustix::fs::statat(&self.directory, &*name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(status) => status,
                // Somebody else was quicker.
                Err(rustix::io::Errno::NOENT) => continue,
                Err(error) => return Err(failed(error)),
            };
            if rustix::fs::FileType::from_raw_mode(status.st_mode).is_file() {
                let since = Duration::from_secs(u64::try_from(status.st_mtime).unwrap_or(0));
                let nanoseconds = Duration::from_nanos(status.st_mtime_nsec);
                let bytes = u64::try_from(status.st_size).unwrap_or(0);
                files.push(CachedFile { name, bytes, used: SystemTime::UNIX_EPOCH + since + nanoseconds });
            }
        }
        Ok(files)
    }

    /// That it is not there is what was wanted.
    fn remove(&self, name: &str) -> Result<(), CacheError> {
        match rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(self.failed("remove a file")(error.into())),
        }
    }

    fn failed(&self, what: &'static str) -> impl Fn(io::Error) -> CacheError + '_ {
        move |source| CacheError::Failed { what, path: self.path.clone(), source }
    }
}

struct CachedFile {
    name: String,
    bytes: u64,
    used: SystemTime,
}

impl CachedFile {
    fn entry(self) -> Option<CacheEntry> {
        let key = self.name.strip_suffix(SUFFIX).filter(|key| !key.starts_with('.'))?.into();
        Some(CacheEntry { key, bytes: self.bytes, used: self.used })
    }
}

/// The artifact of an entry that is as it was written.
fn whole(file: File) -> Option<Artifact> {
    let metadata =
        file.metadata().ok().filter(|metadata| metadata.is_file() && metadata.uid() == rustix::process::geteuid().as_raw())?;
    let bytes = metadata.len().checked_sub(Trailer::BYTES as u64)?;
    let mut trailer = [0; Trailer::BYTES];
    file.read_exact_at(&mut trailer, bytes).ok()?;
    let trailer = Trailer::from_bytes(&trailer).filter(|trailer| trailer.artifact_bytes == bytes)?;
    let artifact = Artifact::of_part(file, bytes).ok()?;
    (Trailer::of(&artifact).ok()? == trailer).then_some(artifact)
}

/// What stands behind an artifact in the cache.
#[derive(Debug, PartialEq, Eq)]
struct Trailer {
    artifact_bytes: u64,
    /// Of its beginning and its end.
    digest: blake3::Hash,
}

impl Trailer {
    const MAGIC: [u8; 8] = *b"mote-aot";
    const BYTES: usize = 8 + 8 + 32;
    /// Of each end.
    const DIGESTED_BYTES: u64 = 16 << 10;

    fn of(artifact: &Artifact) -> io::Result<Self> {
        let bytes = artifact.bytes();
        let mut hasher = blake3::Hasher::new();
        for start in [0, bytes.saturating_sub(Self::DIGESTED_BYTES)] {
            let length = (bytes - start).min(Self::DIGESTED_BYTES);
            let mut end = vec![0; usize::try_from(length).unwrap_or(0)];
            artifact.read_exact_at(&mut end, start)?;
            hasher.update(&end);
        }
        Ok(Self { artifact_bytes: bytes, digest: hasher.finalize() })
    }

    fn to_bytes(&self) -> Vec<u8> {
        [&Self::MAGIC, &self.artifact_bytes.to_le_bytes()[..], self.digest.as_bytes()].concat()
    }

    fn from_bytes(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let (magic, rest) = bytes.split_first_chunk()?;
        let (length, digest) = rest.split_first_chunk()?;
        let digest = <[u8; 32]>::try_from(digest).ok()?;
        (*magic == Self::MAGIC).then_some(Self { artifact_bytes: u64::from_le_bytes(*length), digest: digest.into() })
    }
}
