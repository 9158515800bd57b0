//! Where the runtimes are known to differ, and who is right by the text of WASI preview 1 (its witx files).
//!
//! Most functions are "similar to" one of POSIX there; where nothing else is said, that decides.

/// A difference, or several with one reason.
pub(crate) struct Known {
    /// A label, in which `*` stands for anything.
    pub(crate) pattern: &'static str,
    pub(crate) right: Right,
    pub(crate) reason: &'static str,
}

/// What mote must answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Right {
    /// As wasmtime does today.
    Wasmtime,
    /// As the first implementation of preview 1 did.
    Preview1,
    /// As neither of them does.
    Answer(&'static str),
    /// This, of which wasmtime's answer differs in some runs only.
    Unsteady(&'static str),
    /// Anything, even the same.
    Unspecified,
}

impl Right {
    /// Whether there is a difference each time and everywhere.
    pub(crate) fn is_steady(self) -> bool {
        !matches!(self, Self::Unsteady(_) | Self::Unspecified)
    }
}

impl Known {
    /// What is known of a program.
    pub(crate) fn of(program: &str) -> &'static [Self] {
        KNOWN.iter().find(|(name, _)| *name == program).map_or(&[], |(_, known)| known)
    }

    pub(crate) fn covers(&self, label: &str) -> bool {
        matches(self.pattern, label)
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, pattern)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(start) else { return false };
    text.char_indices().any(|(at, _)| matches(pattern, &text[at..])) || matches(pattern, "")
}

/// A difference in the checks of a program that have such labels.
const fn known(pattern: &'static str, right: Right, reason: &'static str) -> Known {
    Known { pattern, right, reason }
}

const BOTH_EVENTS: &str = "success(0) 2; event 13, type 1, success; event 14, type 2, success";

const ALLOCATES: &str = "posix_fallocate, which neither of them has";
const ANY_FLAGS: &str = "openat takes any flags";
const EVENT: &str = "an error of one subscription is told in its event";
const LANDLOCK: &str = "a confined process is told xdev of the directory at its border";
const NO_RIGHT_TO_READ: &str = "no right to read was asked for";
const NO_RIGHT_TO_WRITE: &str = "no right to write was asked for";
const PATH_MAX: &str = "no path has more than PATH_MAX bytes, however it is resolved";
const RIGHTS: &str = "rights go, and do not come back";
const TRUNCATES: &str = "openat truncates for readers too";
const TRUNCATE_READER: &str = "ftruncate fails on what is not open for writing";
const WAIT_TO_READ: &str = "to wait is a part of the right to read";
const WAIT_TO_WRITE: &str = "to wait is a part of the right to write";

/// By programs. The first that covers a label counts.
const KNOWN: &[(&str, &[Known])] = {
    use Right::{Answer, Preview1, Unspecified, Unsteady, Wasmtime};
    &[
        (
            "fd_allocate",
            &[
                known("four bytes of standard *", Wasmtime, "no files"),
                known("four bytes of file", Answer("success(0)"), ALLOCATES),
                known("four bytes of write-only file", Answer("success(0)"), ALLOCATES),
                known("four bytes of read-only file", Answer("badf(8)"), ALLOCATES),
                known("four bytes of file without rights", Answer("badf(8)"), ALLOCATES),
                known("what is there", Answer("success(0)"), ALLOCATES),
                known("behind the end", Answer("success(0); size 10, position 0"), ALLOCATES),
                known("after a gap", Answer(r#"success(0); 25 bytes "text(21 x \x00)""#), ALLOCATES),
                known("nothing*", Answer("inval(28)"), ALLOCATES),
                known("end at 2^63", Answer("fbig(22)"), ALLOCATES),
                known("offset 2^63", Answer("inval(28)"), ALLOCATES),
                known("length 2^64-1", Answer("inval(28)"), ALLOCATES),
                known("both 2^64-1", Answer("inval(28)"), ALLOCATES),
                known("in the end", Answer(r#"25 bytes "text(21 x \x00)""#), ALLOCATES),
                known("kinds", Answer(r#"4 bytes "\x00\x00\x00\x00""#), ALLOCATES),
                known("left sandbox/*", Unspecified, "what was allocated"),
            ],
        ),
        ("fd_close", &[known("fd_prestat_dir_name of it", Wasmtime, "badf: the number is not open")]),
        (
            "fd_datasync",
            &[
                known("fd_datasync of standard *", Wasmtime, "fdatasync fails on pipes"),
                known("fd_datasync of *directory", Answer("success(0)"), "fdatasync works on directories"),
            ],
        ),
        (
            "fd_fdstat_get",
            &[
                known("rights of *", Unspecified, "fewer than asked for, if they do not apply"),
                known("directory with flag *", Answer("type 3, flags as asked"), ANY_FLAGS),
                known("reading, *directory*", Unspecified, "it does not apply to directories"),
                known("file with flags *", Answer("type 4, flags as asked"), ANY_FLAGS),
                known("*ing, file with flags *", Answer("1"), ANY_FLAGS),
                known("read-only file with flag *", Answer("type 4, flags as asked"), ANY_FLAGS),
                known("reading, read-only file with flag *", Answer("1"), ANY_FLAGS),
                known("writing, read-only file with flag *", Answer("0"), ANY_FLAGS),
                known("writing, directory with flag *", Answer("0"), ANY_FLAGS),
                known("reading, file without rights", Preview1, NO_RIGHT_TO_READ),
            ],
        ),
        (
            "fd_fdstat_set_flags",
            &[
                known("no flags for standard *", Answer("success(0)"), "fcntl works on pipes"),
                known("append to standard *", Answer("success(0)"), "fcntl works on pipes"),
            ],
        ),
        (
            "fd_fdstat_set_rights",
            &[
                known("the same rights", Answer("success(0)"), RIGHTS),
                known("without fd_write", Answer("success(0)"), RIGHTS),
                known("fd_write", Answer("notcapable(76)"), RIGHTS),
                known("fd_pwrite", Answer("notcapable(76)"), RIGHTS),
                known("with fd_write again", Answer("notcapable(76)"), RIGHTS),
                known("fd_write after it", Answer("notcapable(76)"), RIGHTS),
                known("without fd_read", Answer("success(0)"), RIGHTS),
                known("fd_read after it", Answer("notcapable(76)"), RIGHTS),
                known("none", Answer("success(0)"), RIGHTS),
                known("directory without *", Answer("success(0)"), RIGHTS),
                known("path_unlink_file", Answer("notcapable(76)"), RIGHTS),
                known("path_open after it", Answer("notcapable(76)"), RIGHTS),
                known("the same rights for standard *", Answer("success(0)"), RIGHTS),
                known("the same rights for *directory", Answer("success(0)"), RIGHTS),
                known("the same rights for *file", Answer("success(0)"), RIGHTS),
                known("the same rights for file without rights", Answer("success(0)"), RIGHTS),
                known("in the end", Answer(r#"13 bytes "hello, world\x0a""#), RIGHTS),
                known("left sandbox/*", Unspecified, "what was written, and what was not"),
            ],
        ),
        (
            "fd_filestat_set_size",
            &[
                known("in append mode, without the right to write", Wasmtime, TRUNCATE_READER),
                known("who made it, *", Answer("inval(28)"), TRUNCATE_READER),
                known("left sandbox/made", Unspecified, "what was made longer, and what was not"),
            ],
        ),
        (
            "fd_filestat_set_times",
            &[
                known("preopened directory", Preview1, "of an open file or directory"),
                known("both times of preopened directory", Preview1, "of an open file or directory"),
                known("* time* of standard *", Wasmtime, "streams have no times"),
            ],
        ),
        (
            "fd_pread",
            &[
                known("offset 2^63-1", Answer("success(0) 0"), "it is behind the end"),
                known("no vectors, offset 2^64-1", Wasmtime, "preadv refuses negative offsets first"),
                known("no vectors from standard input", Wasmtime, "preadv refuses pipes first"),
                known("* standard error", Answer("spipe(70)"), "preadv refuses pipes first"),
                known("* file without rights", Preview1, NO_RIGHT_TO_READ),
            ],
        ),
        ("fd_prestat_dir_name", &[known("fd_prestat_dir_name of *", Wasmtime, "badf if the number is not open")]),
        ("fd_prestat_get", &[known("fd_prestat_get of directory", Wasmtime, "badf is what C libraries expect")]),
        (
            "fd_pwrite",
            &[
                known("no bytes, offset 2^64-1", Wasmtime, "pwritev refuses negative offsets first"),
                known("* standard input", Answer("spipe(70)"), "pwritev refuses pipes first"),
            ],
        ),
        (
            "fd_read",
            &[
                known("* file without rights", Preview1, NO_RIGHT_TO_READ),
                known("no vectors from standard input", Preview1, "nothing interrupted it"),
            ],
        ),
        (
            "fd_readdir",
            &[
                known("cookie *", Unspecified, "no cookie of this directory"),
                known("removed directory", Answer("noent(44)"), "as readdir"),
            ],
        ),
        ("fd_renumber", &[known("fd_prestat_get of it", Wasmtime, "badf is what C libraries expect")]),
        (
            "fd_seek",
            &[
                known("current +2^63-1 at 2^40", Preview1, "lseek refuses offsets that are no off_t"),
                known("end +2^63-1", Preview1, "lseek refuses offsets that are no off_t"),
                known("wrong descriptor and offset", Wasmtime, "lseek looks at the descriptor first"),
                known("directory and wrong offset", Unspecified, "which of two errors is told"),
            ],
        ),
        (
            "fd_sync",
            &[
                known("fd_sync of standard *", Wasmtime, "fsync fails on pipes"),
                known("fd_sync of *directory", Answer("success(0)"), "fsync works on directories"),
            ],
        ),
        (
            "fd_write",
            &[
                known("no bytes in append mode", Preview1, "a write of nothing has no effect"),
                known("who cut it, without the right", Answer("badf(8)"), NO_RIGHT_TO_WRITE),
                known("who made it, without the right", Preview1, NO_RIGHT_TO_WRITE),
                known("opened with flags *", Answer("success(0)"), ANY_FLAGS),
                known("in the end", Answer(r#"5 bytes "DelCD""#), ANY_FLAGS),
                known("left sandbox/made", Preview1, NO_RIGHT_TO_WRITE),
                known("left sandbox/new", Unspecified, "what was written"),
            ],
        ),
        (
            "fifo",
            &[
                known("fd_write", Preview1, "write works on pipes"),
                known("fd_read of what was written", Preview1, "read works on pipes"),
                known("fd_seek", Preview1, "lseek refuses pipes"),
                known("fd_tell", Preview1, "lseek refuses pipes"),
            ],
        ),
        ("path_create_directory", &[known("* too long a path of *", Answer("nametoolong(37)"), PATH_MAX)]),
        ("path_filestat_set_times", &[known("* too long a path of *", Answer("nametoolong(37)"), PATH_MAX)]),
        (
            "path_link",
            &[
                known("* too long a path of *", Answer("nametoolong(37)"), PATH_MAX),
                known("path_link from \".\"", Unspecified, LANDLOCK),
                known("path_link from \"./*\"", Unspecified, LANDLOCK),
                known("path_link from \"directory*/..\"", Unspecified, LANDLOCK),
            ],
        ),
        (
            "path_open",
            &[
                known("*, read-only, oflags 8*", Wasmtime, TRUNCATES),
                known("*, read-only, oflags 12*", Wasmtime, TRUNCATES),
                known("*, no rights, oflags 8*", Wasmtime, TRUNCATES),
                known("*, no rights, oflags 12*", Wasmtime, TRUNCATES),
                known("file to append and to cut", Wasmtime, ANY_FLAGS),
                known("file with flags *", Answer("success(0), type 4"), ANY_FLAGS),
                known("directory with flags *", Answer("success(0), type 3"), ANY_FLAGS),
                known("path_open in standard *", Preview1, "notdir, as for files"),
            ],
        ),
        ("path_readlink", &[known("* too long a path of *", Answer("nametoolong(37)"), PATH_MAX)]),
        (
            "path_remove_directory",
            &[
                known("* too long a path of *", Answer("nametoolong(37)"), PATH_MAX),
                known("fd_readdir of it", Answer("noent(44)"), "as readdir"),
            ],
        ),
        ("path_rename", &[known("* too long a path of *", Answer("nametoolong(37)"), PATH_MAX)]),
        ("path_symlink", &[known("* at too long a path of *", Answer("nametoolong(37)"), PATH_MAX)]),
        ("path_unlink_file", &[known("* too long a path of *", Answer("nametoolong(37)"), PATH_MAX)]),
        ("permissions", &[known("*, path_open to truncate a reader", Wasmtime, TRUNCATES)]),
        (
            "poll_oneoff",
            &[
                known("real time, long ago", Wasmtime, "any clock has absolute times"),
                known(
                    "time of the process*",
                    Answer("success(0) 1; event 7, type 0, badf"),
                    "there is no such clock, which is told in the event",
                ),
                known("bytes of *file to read from its end", Answer("0, flags 0"), "no bytes are available, no peer has gone"),
                known("bytes of empty file to read", Answer("0, flags 0"), "no bytes are available, no peer has gone"),
                known("bytes of file to read and to write", Unspecified, "how much can be written is not said"),
                known("bytes of file and no descriptor", Answer("0, flags 0"), EVENT),
                known("bytes of file to read*", Preview1, "the number of bytes available"),
                known("bytes of *", Unspecified, "how much can be written is not said"),
                known("file to read and to write", Unsteady(BOTH_EVENTS), "always triggers for regular files"),
                known("file and no descriptor", Answer("success(0) 2; event 16, type 1, success; event 17, type 1, badf"), EVENT),
                known("millisecond and no descriptor", Answer("success(0) 1; event 17, type 1, badf"), EVENT),
                known("waiting to * preopened directory", Answer("notcapable(76)"), "it has no right poll_fd_readwrite"),
                known("waiting to read file without rights", Answer("badf(8)"), WAIT_TO_READ),
                known("waiting to read write-only file", Answer("badf(8)"), WAIT_TO_READ),
                known("waiting to write read-only file", Answer("badf(8)"), WAIT_TO_WRITE),
                known("waiting to write file without rights", Answer("badf(8)"), WAIT_TO_WRITE),
                known("waiting to write standard input", Wasmtime, "it is open for reading"),
            ],
        ),
        (
            "sock_accept",
            &[
                known("standard input", Answer("notsock(57)"), "as accept"),
                known("of a connection", Answer("notcapable(76)"), "it has no right sock_accept"),
                known("listener, fd_seek", Answer("spipe(70)"), "as lseek"),
                known("listener, fd_tell", Answer("spipe(70)"), "as lseek"),
                known("connection, fd_seek", Answer("spipe(70)"), "as lseek"),
                known("connection, fd_tell", Answer("spipe(70)"), "as lseek"),
            ],
        ),
        ("sock_none", &[known("sock_*", Wasmtime, "notsock: POSIX's ENOTSOCK")]),
        (
            "sock_recv",
            &[known("fd_pread", Answer("spipe(70)"), "as preadv"), known("of the listener", Answer("notconn(53)"), "as recv")],
        ),
        (
            "sock_send",
            &[known("fd_pwrite", Answer("spipe(70)"), "as pwritev"), known("to the listener", Answer("notconn(53)"), "as send")],
        ),
        (
            "sock_shutdown",
            &[
                known("of standard input", Answer("notsock(57)"), "as shutdown"),
                known("of the listener", Answer("notconn(53)"), "as shutdown"),
            ],
        ),
        (
            "wrong_pointers",
            &[
                known("*(buffer + 1)*", Answer("success(0)"), "no pointer needs an alignment"),
                known("fd_prestat_dir_name(NO_FD, *", Wasmtime, "badf: the number is not open"),
                known("poll_oneoff(&subscription, &event, UINT32_MAX, *", Answer("fault(21)"), "they end behind the memory"),
                known("*UINT32_MAX*", Preview1, "it ends behind the memory"),
                known("*&long_*", Preview1, "it ends behind the memory"),
            ],
        ),
        (
            "wrong_values",
            &[
                known("fd_fdstat_set_rights(*", Answer("notcapable(76)"), "it does not have that right"),
                known("path_open(*UINT64_C(*", Answer("success(0)"), "rights that there are not apply to nothing"),
                known("poll_oneoff(&clock, *", Answer("success(0)"), EVENT),
                known("sock_send(*", Wasmtime, "notsock: POSIX's ENOTSOCK"),
                known("sock_*", Answer("notsock(57)"), "no socket, whatever the flags"),
            ],
        ),
    ]
};
