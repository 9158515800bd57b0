//! What an artifact is taken for, and what a cache keeps. The compiler that makes them is the embedded one.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    ops::ControlFlow,
    path::Path,
    sync::OnceLock,
    thread,
    time::{Duration, SystemTime},
};

use proptest::prelude::*;

use super::*;

fn compile_quietly(module: &[u8], options: &CompileOptions) -> Result<Artifact, CompileError> {
    compile(module, options, |_| ControlFlow::Continue(()))
}

fn contents(artifact: &Artifact) -> Vec<u8> {
    let mut bytes = Vec::new();
    artifact.reader().read_to_end(&mut bytes).unwrap();
    bytes
}

/// A small artifact, compiled once.
fn small() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let module = b"(module (memory 1) (func (export \"f\") (param i32) (result i32) (i32.load (local.get 0))))";
        contents(&compile_quietly(module, &CompileOptions::default()).unwrap())
    })
}

fn parse(bytes: &[u8]) -> Result<Artifact, ArtifactError> {
    let mut file = memory_file("test").unwrap();
    file.write_all(bytes).unwrap();
    Artifact::from_file(file)
}

/// Where the small artifact says this.
fn place(text: &[u8]) -> usize {
    small().windows(text.len()).position(|window| window == text).unwrap()
}

#[test]
fn the_version_is_that_of_the_configuration() {
    let text = include_str!("../../../wasmtime-config/src/lib.rs");
    assert!(text.contains(&format!("WASMTIME_VERSION: &str = \"{WASMTIME_VERSION}\"")));
}

#[test]
fn an_artifact_tells_what_the_host_needs() {
    let artifact = parse(small()).unwrap();
    assert!(Artifact::is_artifact(&small()[..8]));
    assert_eq!(artifact.bytes(), small().len() as u64);
    let text = artifact.text();
    assert!(
        text.start.is_multiple_of(4096) && text.end.is_multiple_of(4096) && text.start < text.end && text.end <= artifact.bytes()
    );
    assert!(!artifact.counts_fuel());
    assert_eq!(artifact.cpu_features(), CpuFeatures::of_host());
    assert_eq!(contents(&artifact), small());

    let options = CompileOptions { fuel: true, target_cpu: TargetCpu::X86_64V3, ..CompileOptions::default() };
    let other = compile_quietly(b"(module)", &options).unwrap();
    assert!(other.counts_fuel() && other.text().is_empty());
    assert_eq!(other.cpu_features(), TargetCpu::X86_64V3.features(CpuFeatures::NONE));
}

#[test]
fn a_compiled_artifact_cannot_be_changed() {
    let artifact = compile_quietly(b"(module)", &CompileOptions::default()).unwrap();
    let error = rustix::io::pwrite(&artifact, b"x", 0).unwrap_err();
    assert_eq!(error, rustix::io::Errno::PERM);
    assert!(rustix::fs::ftruncate(&artifact, 0).is_err());
}

#[test]
fn what_is_no_artifact_for_this_mote_says_why() {
    let changed = |at: usize, byte: u8| {
        let mut bytes = small().to_vec();
        bytes[at] = byte;
        parse(&bytes).unwrap_err()
    };
    assert!(matches!(parse(b""), Err(ArtifactError::NotAnArtifact)));
    assert!(matches!(parse(b"\0asm\x01\0\0\0"), Err(ArtifactError::NotAnArtifact)));
    assert!(matches!(parse(&fs::read("/proc/self/exe").unwrap()), Err(ArtifactError::NotAnArtifact)));
    assert!(matches!(changed(7, 0), ArtifactError::NotAnArtifact));
    assert!(matches!(changed(4, 1), ArtifactError::OtherArchitecture));
    assert!(matches!(changed(18, 183), ArtifactError::OtherArchitecture));
    assert!(matches!(changed(48, 2), ArtifactError::Component));
    assert!(matches!(changed(48, 0), ArtifactError::Malformed { .. }));
    let version = place(b"\0\x0648.0.8");
    let error = changed(version + 3, b'7');
    assert!(matches!(&error, ArtifactError::OtherVersion { found } if found == "47.0.8"), "{error}");
    assert!(error.to_string().contains("compiled by wasmtime 47.0.8; this mote runs what version 48.0.8"), "{error}");
    assert!(matches!(changed(place(b".text\0"), b'!'), ArtifactError::Malformed { .. }));
    for bytes in [8, 63, 64, 4096, small().len() - 1] {
        assert!(parse(&small()[..bytes]).is_err(), "{bytes}");
    }
}

proptest! {
    /// It is refused or understood; code then lies in the file.
    #[test]
    fn no_damage_makes_it_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), cut in any::<prop::sample::Index>()) {
        // Headers and what it says about itself are where something is to be found.
        let interesting: Vec<usize> = (0..0x480).chain(small().len() - 2048..small().len()).collect();
        let mut bytes = small().to_vec();
        for (index, byte) in &changes {
            bytes[*index.get(&interesting)] = *byte;
        }
        for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
            if let Ok(artifact) = parse(bytes) {
                let text = artifact.text();
                prop_assert!(text.start <= text.end && text.end <= artifact.bytes() && text.start.is_multiple_of(4096));
            }
        }
    }

    #[test]
    fn what_begins_as_one_is_no_reason_to_panic(rest in prop::collection::vec(any::<u8>(), 0..300)) {
        let bytes = [&small()[..16], &rest].concat();
        prop_assert!(parse(&bytes).is_err());
    }
}

fn cache(directory: &Path, max_bytes: u64) -> ArtifactCache {
    ArtifactCache::open(&directory.join("cache"), max_bytes).unwrap()
}

fn key(number: u32) -> CacheKey {
    CacheKey::new(&number.to_le_bytes(), &CompileOptions::default())
}

#[test]
fn what_was_put_in_comes_out() {
    let directory = tempfile::tempdir().unwrap();
    let cache = cache(directory.path(), ArtifactCache::DEFAULT_MAX_BYTES);
    assert!(cache.get(&key(1)).unwrap().is_none());
    let kept = cache.insert(&key(1), &parse(small()).unwrap()).unwrap();
    let found = cache.get(&key(1)).unwrap().unwrap();
    assert!(contents(&kept) == small() && contents(&found) == small());
    assert!(cache.get(&key(2)).unwrap().is_none());
    let entries = cache.list().unwrap();
    assert_eq!(entries.iter().map(|entry| entry.key.clone()).collect::<Vec<_>>(), [key(1).to_string()]);
    assert_eq!(cache.clear().unwrap(), (1, entries[0].bytes));
    assert!(cache.get(&key(1)).unwrap().is_none() && cache.list().unwrap().is_empty());
    assert_eq!(contents(&found), small());
}

#[test]
fn a_key_tells_all_that_the_code_depends_on_and_nothing_else() {
    let options = CompileOptions::default();
    let plain = CompileOptions { target_cpu: TargetCpu::X86_64, ..options };
    let limits = CompileLimits { time: Duration::from_secs(1), ..options.limits };
    let key = |module: &[u8], options: &CompileOptions| CacheKey::new(module, options);
    assert_eq!(key(b"a", &options), key(b"a", &CompileOptions { limits, ..options }));
    assert_ne!(key(b"a", &options), key(b"b", &options));
    assert_ne!(key(b"a", &options), key(b"a", &CompileOptions { fuel: true, ..options }));
    assert_ne!(key(b"a", &plain), key(b"a", &CompileOptions { target_cpu: TargetCpu::X86_64V2, ..options }));
    let guest_features = CpuFeatures::NONE;
    assert_eq!(key(b"a", &plain), key(b"a", &CompileOptions { guest_features, ..options }));
}

#[test]
fn what_was_not_used_for_longest_is_removed_first() {
    let directory = tempfile::tempdir().unwrap();
    let artifact = parse(small()).unwrap();
    let one = cache(directory.path(), u64::MAX);
    one.insert(&key(0), &artifact).unwrap();
    let bytes = one.list().unwrap()[0].bytes;
    for number in 0..3 {
        one.insert(&key(number), &artifact).unwrap();
        let file = File::options().write(true).open(one.path().join(format!("{}.cwasm", key(number)))).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(100 - u64::from(number))).unwrap();
    }
    let used = one.get(&key(0)).unwrap().unwrap();
    let in_the_way = one.get(&key(1)).unwrap().unwrap();
    let file = File::options().write(true).open(one.path().join(format!("{}.cwasm", key(1)))).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(200)).unwrap();

    let small_one = cache(directory.path(), 3 * bytes);
    small_one.insert(&key(3), &artifact).unwrap();
    let there = |number| small_one.get(&key(number)).unwrap().is_some();
    assert_eq!([0, 1, 2, 3].map(there), [true, false, true, true]);
    assert!(contents(&used) == small() && contents(&in_the_way) == small());

    // No room for it at all: it is not kept, and nothing is removed for it.
    let tiny = cache(directory.path(), bytes - 1);
    assert_eq!(contents(&tiny.insert(&key(4), &artifact).unwrap()), small());
    assert!(tiny.get(&key(4)).unwrap().is_none() && there(0));
}

#[test]
fn a_damaged_entry_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    let cache = cache(directory.path(), u64::MAX);
    let artifact = parse(small()).unwrap();
    let path = cache.path().join(format!("{}.cwasm", key(1)));
    let damage: [&dyn Fn(Vec<u8>) -> Vec<u8>; 6] = [
        &|_| Vec::new(),
        &|bytes| bytes[..bytes.len() - 1].to_vec(),
        &|bytes| bytes[..bytes.len() / 2].to_vec(),
        &|bytes| [&bytes[..], b"x"].concat(),
        &|mut bytes| {
            bytes[0x50] ^= 1;
            bytes
        },
        &|mut bytes| {
            let at = bytes.len() - 100;
            bytes[at] ^= 1;
            bytes
        },
    ];
    for change in damage {
        cache.insert(&key(1), &artifact).unwrap();
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, change(bytes)).unwrap();
        assert!(cache.get(&key(1)).unwrap().is_none());
        assert!(!path.exists());
    }
    std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
    assert!(cache.get(&key(1)).is_err());
}

#[test]
fn a_directory_of_others_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deep/er/cache");
    ArtifactCache::open(&path, 1).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    for mode in [0o720, 0o702, 0o777] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert!(matches!(ArtifactCache::open(&path, 1), Err(CacheError::NotPrivate { .. })), "{mode:o}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    ArtifactCache::open(&path, 1).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(1), None).unwrap();
        assert!(matches!(ArtifactCache::open(&path, 1), Err(CacheError::NotPrivate { .. })));
    }
}

#[test]
fn threads_do_not_see_what_others_have_half_written() {
    let directory = tempfile::tempdir().unwrap();
    let artifact = parse(small()).unwrap();
    thread::scope(|scope| {
        for number in 0..8_u32 {
            let (artifact, directory) = (&artifact, directory.path());
            scope.spawn(move || {
                let cache = cache(directory, 4 * 20_000);
                for round in 0..25 {
                    let key = key((number + round) % 5);
                    if let Some(found) = cache.get(&key).unwrap() {
                        assert!(contents(&found) == small());
                    }
                    assert!(contents(&cache.insert(&key, artifact).unwrap()) == small());
                    if round % 10 == 9 {
                        cache.clear().unwrap();
                    }
                }
            });
        }
    });
    let left = fs::read_dir(directory.path().join("cache")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| name.to_string_lossy().ends_with(".cwasm")));
}

#[test]
fn what_nobody_finished_is_removed_after_a_while() {
    let directory = tempfile::tempdir().unwrap();
    let cache = cache(directory.path(), u64::MAX);
    let [old, new] = ["old", "new"].map(|name| cache.path().join(format!(".new-{name}")));
    let file = File::create(&old).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
    fs::write(&new, "").unwrap();
    cache.insert(&key(1), &parse(small()).unwrap()).unwrap();
    assert!(!old.exists() && new.exists());
}
