//! The directories that a program works in, and what is left in them.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fmt::Write,
    fs::{self, File, Permissions},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tempfile::TempDir;

/// `sandbox/`, which a program has as `/`, and `outside/`, which it has as `data/outside`: what lies beside the first
/// cannot be reached through it.
pub(crate) struct Fixture {
    root: TempDir,
    /// Open at both ends, so that no program waits for somebody at the other one.
    _fifo: File,
}

impl Fixture {
    /// The same files each time.
    pub(crate) fn new() -> Self {
        let root = tempfile::Builder::new().prefix("mote-test-").tempdir().expect("no temporary directory");
        let sandbox = root.path().join("sandbox");
        for directory in ["sandbox/directory/nested", "sandbox/empty_directory", "sandbox/bytes", "outside"] {
            fs::create_dir_all(root.path().join(directory)).expect("cannot make a directory");
        }
        let numbers: String = (0..2000).fold(String::new(), |mut text, number| {
            writeln!(text, "{number}").expect("a string takes all");
            text
        });
        for (path, contents) in [
            ("file", "hello, world\n"),
            ("empty", ""),
            ("numbers", numbers.as_str()),
            ("hard_link", "twice\n"),
            ("directory/a", "file a\n"),
            ("directory/b", "file b\n"),
            ("directory/nested/deep", "deep\n"),
            ("../outside/secret", "a secret\n"),
        ] {
            fs::write(sandbox.join(path), contents).expect("cannot write a file");
        }
        fs::hard_link(sandbox.join("hard_link"), sandbox.join("hard_link_too")).expect("cannot make a hard link");
        for (path, target) in LINKS {
            symlink(target, sandbox.join(path)).expect("cannot make a link");
        }
        let no_text = OsStr::from_bytes(b"\xff");
        fs::write(sandbox.join("bytes").join(no_text), "").expect("cannot write a file");
        symlink(no_text, sandbox.join("bytes/link")).expect("cannot make a link");
        let fifo = sandbox.join("fifo");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o644), 0).expect("cannot make a fifo");
        let fifo = File::options().read(true).write(true).open(fifo).expect("cannot open a fifo");
        Self { root, _fifo: fifo }
    }

    /// The same, with what `permissions.c` tries.
    pub(crate) fn with_modes() -> Self {
        let fixture = Self::new();
        let sandbox = fixture.sandbox();
        for (path, _) in MODES {
            let directory = !path.contains('_');
            let file = if directory { sandbox.join(path).join("file") } else { sandbox.join(path) };
            fs::create_dir_all(file.parent().expect("it is below the sandbox")).expect("cannot make a directory");
            fs::write(file, path).expect("cannot write a file");
        }
        fixture.set_modes(|mode| mode);
        fixture
    }

    /// Whether modes mean anything to this process.
    pub(crate) fn refuses(&self) -> bool {
        let refused = File::open(self.sandbox().join("locked_file")).is_err();
        self.lift_modes();
        refused
    }

    /// Makes all of that accessible again: it is described, and it is removed.
    pub(crate) fn lift_modes(&self) {
        self.set_modes(|_| 0o755);
    }

    fn set_modes(&self, mode_for: impl Fn(u32) -> u32) {
        for (path, mode) in MODES {
            let permissions = Permissions::from_mode(mode_for(mode));
            fs::set_permissions(self.sandbox().join(path), permissions).expect("cannot set a mode");
        }
    }

    pub(crate) fn sandbox(&self) -> PathBuf {
        self.root.path().join("sandbox")
    }

    pub(crate) fn outside(&self) -> PathBuf {
        self.root.path().join("outside")
    }

    /// Everything in it: what it is, of how many links, and its contents.
    pub(crate) fn tree(&self) -> BTreeMap<String, String> {
        let mut tree = BTreeMap::new();
        describe(self.root.path(), "", &mut tree);
        tree
    }
}

const LINKS: [(&str, &str); 17] = [
    ("link", "file"),
    ("link_to_link", "link"),
    ("directory_link", "directory"),
    ("dangling", "nowhere"),
    ("loop", "loop"),
    ("loop_a", "loop_b"),
    ("loop_b", "loop_a"),
    ("leaving", "../outside/secret"),
    ("leaving_missing", "../outside/missing"),
    ("leaving_directory", "../outside"),
    ("out_and_back", "../sandbox/file"),
    ("absolute", "/file"),
    ("absolute_missing", "/missing/missing"),
    ("absolute_host", "/etc/passwd"),
    ("absolute_directory", "/directory"),
    ("directory/up", "../file"),
    ("directory/leaving", "../../outside/secret"),
];

/// Directories with a file in each, and files, which have an underscore.
const MODES: [(&str, u32); 6] = [
    ("locked", 0o000),
    ("unlisted", 0o333),
    ("fixed", 0o555),
    ("locked_file", 0o000),
    ("read_only", 0o444),
    ("write_only", 0o222),
];

fn describe(directory: &Path, prefix: &str, tree: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(directory).expect("cannot read a directory") {
        let entry = entry.expect("cannot read a directory");
        let (path, name) = (entry.path(), format!("{prefix}{}", entry.file_name().to_string_lossy()));
        let metadata = fs::symlink_metadata(&path).expect("cannot stat");
        let file_type = metadata.file_type();
        let contents = if file_type.is_dir() {
            describe(&path, &format!("{name}/"), tree);
            String::from("directory")
        } else if file_type.is_symlink() {
            format!("link to {:?}", fs::read_link(&path).expect("cannot read a link"))
        } else if file_type.is_file() {
            let bytes = fs::read(&path).expect("cannot read a file");
            format!("{} bytes, {}", bytes.len(), excerpt(&bytes))
        } else {
            String::from(if file_type.is_fifo() { "fifo" } else { "something else" })
        };
        tree.insert(name, format!("{contents}, mode {:o}, {} links", metadata.mode() & 0o7777, metadata.nlink()));
    }
}

/// The start of a text, and a sum (FNV-1a) of all.
fn excerpt(bytes: &[u8]) -> String {
    let sum = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum: u64, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    format!("{:?} (sum {sum:x})", String::from_utf8_lossy(bytes.get(..80).unwrap_or(bytes)))
}
