//! What a confined thread can do and cannot. Most of it would end the process of the tests, so it happens in a child: this
//! program again, with one case.

use std::{
    env, fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    ptr, thread,
};

use super::*;

const CASE: &str = "MOTE_CONFINEMENT_CASE";
const DIRECTORY: &str = "MOTE_CONFINEMENT_DIRECTORY";
const PLAIN: Role = Role { files: false, sockets: false, calls: false, compiled: false, debugger: false, watchpoints: false };

/// How a child ends in which all went well.
const DONE: i32 = 42;

/// Runs a case in a child, in a directory of its own with `inside/`, `read-only/` and `outside/`, each with a `file`.
fn outcome(case: &str) -> ExitStatus {
    let directory = tempfile::tempdir().unwrap();
    for name in ["inside", "read-only", "outside"] {
        fs::create_dir(directory.path().join(name)).unwrap();
        fs::write(directory.path().join(name).join("file"), name).unwrap();
    }
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "confinement::tests::child", "--ignored", "--nocapture"]);
    let output = command.env(CASE, case).env(DIRECTORY, directory.path()).env_remove("RUST_BACKTRACE").output().unwrap();
    println!("{case}: {output:?}");
    output.status
}

#[track_caller]
fn expect_done(case: &str) {
    assert_eq!(outcome(case).code(), Some(DONE), "{case}");
}

#[track_caller]
fn expect_signal(case: &str, signal: libc::c_int) {
    assert_eq!(outcome(case).signal(), Some(signal), "{case}");
}

fn landlock_is_missing() -> bool {
    let Err(error) = ConfinementSupport::probe().landlock_abi else { return false };
    assert!(matches!(error, ConfinementError::Unsupported { .. }), "{error}");
    let thread = thread::current();
    let _written = writeln!(std::io::stderr(), "skipped {}: {error}", thread.name().unwrap_or("a test"));
    true
}

#[test]
fn a_forbidden_call_ends_the_process() {
    let cases = [
        "call socket",
        "call execve",
        "call ptrace",
        "call openat",
        "call clone",
        "call prctl",
        "call accept4",
        "call seccomp",
        "other ioctl",
        "executable memory",
        "executable later",
        "file mapping",
        "signal to another process",
        "signal handler",
        "thread",
        "files without directories",
        "socket with sockets",
    ];
    for case in cases {
        expect_signal(case, libc::SIGSYS);
    }
}

#[test]
fn what_a_run_needs_is_allowed() {
    for case in ["memory and output", "memory of a thread", "panic", "sockets"] {
        expect_done(case);
    }
}

#[test]
fn a_crash_keeps_its_signal() {
    expect_signal("null pointer", libc::SIGSEGV);
    expect_signal("abort", libc::SIGABRT);
}

#[test]
fn files_are_those_of_the_directories() {
    if landlock_is_missing() {
        return;
    }
    for case in ["files", "files by the calls that are allowed", "files on a thread that was started", "open descriptors"] {
        expect_done(case);
    }
}

/// The two that a child takes away from itself, as an old kernel lacks them.
#[test]
fn what_the_kernel_lacks_is_told_apart_from_failure() {
    for case in ["no Landlock", "Landlock is off", "no seccomp", "seccomp is denied"] {
        expect_done(case);
    }
}

#[test]
fn other_threads_are_not_confined() {
    let before = filters("/proc/thread-self/status");
    let confined = thread::scope(|scope| {
        let (sender, receiver) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            // SAFETY: no precondition.
            let id = unsafe { libc::gettid() };
            let both = Confinement::BestEffort.restrict_files(&Permissions::default());
            sender.send((id, both.and_then(|()| Confinement::Required.restrict_calls(PLAIN)))).unwrap();
            let _disconnected = ended.recv();
        });
        let (id, result) = receiver.recv().unwrap();
        result.unwrap();
        let confined = filters(&format!("/proc/self/task/{id}/status"));
        drop(end);
        confined
    });
    assert_eq!(filters("/proc/thread-self/status"), before);
    assert_eq!(confined, before + 1);
    // What would end the process.
    assert!(fs::read("/proc/version").is_ok() && TcpListener::bind("127.0.0.1:0").is_ok());
}

/// How many filters a thread has.
fn filters(status: &str) -> u32 {
    let status = fs::read_to_string(status).unwrap();
    status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:")).unwrap().trim().parse().unwrap()
}

#[test]
fn a_probe_leaves_this_thread_as_it_is() {
    let support = ConfinementSupport::probe();
    support.seccomp.unwrap();
    assert!(fs::read("/proc/version").is_ok());
}

#[test]
#[ignore = "the other tests start it with a case"]
fn child() {
    let Ok(case) = env::var(CASE) else { return };
    let directory = PathBuf::from(env::var_os(DIRECTORY).unwrap());
    if let Some(name) = case.strip_prefix("call ") {
        confine(PLAIN);
        call(name);
    } else {
        run_case(&case, &directory);
    }
    std::process::exit(DONE);
}

fn confine(role: Role) {
    seccomp::install(role).unwrap();
}

fn call(name: &str) {
    let number = match name {
        "socket" => libc::SYS_socket,
        "execve" => libc::SYS_execve,
        "ptrace" => libc::SYS_ptrace,
        "openat" => libc::SYS_openat,
        "clone" => libc::SYS_clone,
        "prctl" => libc::SYS_prctl,
        "accept4" => libc::SYS_accept4,
        "seccomp" => libc::SYS_seccomp,
        _ => panic!("{name}"),
    };
    // SAFETY: with these arguments each of them fails if it is not forbidden, but for prctl, which then does nothing.
    unsafe { libc::syscall(number, -1, 0, 0, 0, 0, 0) };
}

/// A private mapping of a page without access.
fn page() -> *mut libc::c_void {
    // SAFETY: a new mapping at an address that the kernel chooses changes no memory that exists.
    unsafe { libc::mmap(ptr::null_mut(), 4096, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) }
}

fn run_case(case: &str, directory: &Path) {
    let file = || fs::File::open(directory.join("inside/file")).unwrap();
    match case {
        "other ioctl" => {
            let kvm_create_vm = 0xae01;
            confine(PLAIN);
            // SAFETY: the descriptor is none.
            unsafe { libc::ioctl(-1, kvm_create_vm, 0) };
        }
        "executable memory" => {
            let (protection, flags) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            confine(PLAIN);
            // SAFETY: as in `page`.
            unsafe { libc::mmap(ptr::null_mut(), 4096, protection, flags, -1, 0) };
        }
        "executable later" => {
            confine(PLAIN);
            // SAFETY: nothing refers to the page.
            unsafe { libc::mprotect(page(), 4096, libc::PROT_READ | libc::PROT_EXEC) };
        }
        "file mapping" => {
            let file = file();
            confine(PLAIN);
            let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
            // SAFETY: as in `page`.
            unsafe { libc::mmap(ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_PRIVATE, fd, 0) };
        }
        "signal to another process" => {
            let parent = std::os::unix::process::parent_id();
            confine(PLAIN);
            // SAFETY: signal 0 does nothing.
            unsafe { libc::syscall(libc::SYS_tgkill, parent, parent, 0) };
        }
        "signal handler" => {
            confine(PLAIN);
            // SAFETY: ignoring a signal runs no handler.
            unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
        }
        "thread" => {
            confine(PLAIN);
            let _result = thread::Builder::new().spawn(|| ());
        }
        "files without directories" => {
            confine(Role { sockets: true, ..PLAIN });
            let _result = fs::File::open(directory.join("inside/file"));
        }
        "socket with sockets" => {
            confine(Role { files: true, sockets: true, ..PLAIN });
            let _result = TcpListener::bind("127.0.0.1:0");
        }
        "memory and output" => {
            confine(PLAIN);
            let blocks: Vec<Vec<u8>> = (0..24).map(|power| vec![1; 1 << power]).collect();
            let mut grown: Vec<u8> = Vec::new();
            blocks.iter().for_each(|block| grown.extend(block));
            let map: std::collections::HashMap<_, _> = [(grown.len(), blocks.len())].into();
            println!("{map:?} at {:?}", std::time::SystemTime::now());
            eprintln!("and here");
        }
        // That of a thread is another heap than that of the process, and given back in another way.
        "memory of a thread" => thread::scope(|scope| {
            scope.spawn(|| {
                confine(PLAIN);
                let blocks: Vec<Vec<u8>> = (0..256).map(|_| vec![1; 64 << 10]).collect();
                println!("{}", blocks.len());
            });
        }),
        "panic" => {
            confine(PLAIN);
            let result = std::panic::catch_unwind(|| panic!("on purpose"));
            assert!(result.is_err());
        }
        "null pointer" => {
            confine(PLAIN);
            // SAFETY: it is not; that it ends the process is what is tested.
            unsafe { ptr::without_provenance::<u8>(16).read_volatile() };
        }
        "abort" => {
            confine(PLAIN);
            std::process::abort();
        }
        "sockets" => sockets(),
        "files by the calls that are allowed" => {
            let [inside, outside] = ["inside", "outside"].map(|name| fs::File::open(directory.join(name)).unwrap());
            landlock::restrict(&permissions(directory)).unwrap();
            confine(Role { files: true, ..PLAIN });
            files_by_descriptor(&inside, &outside);
        }
        "files" => {
            landlock::restrict(&permissions(directory)).unwrap();
            files(directory);
        }
        "files on a thread that was started" => {
            landlock::restrict(&permissions(directory)).unwrap();
            let directory = directory.to_owned();
            thread::spawn(move || files(&directory)).join().unwrap();
        }
        "open descriptors" => {
            let mut file = fs::File::options().append(true).read(true).open(directory.join("outside/file")).unwrap();
            landlock::restrict(&Permissions::default()).unwrap();
            confine(PLAIN);
            file.write_all(b"more").unwrap();
        }
        "no Landlock" => lacking(libc::SYS_landlock_create_ruleset, libc::ENOSYS, Layer::Landlock, true),
        "Landlock is off" => lacking(libc::SYS_landlock_create_ruleset, libc::EOPNOTSUPP, Layer::Landlock, true),
        "no seccomp" => lacking(libc::SYS_seccomp, libc::ENOSYS, Layer::Seccomp, true),
        "seccomp is denied" => lacking(libc::SYS_seccomp, libc::EPERM, Layer::Seccomp, false),
        other => panic!("{other}"),
    }
}

fn permissions(directory: &Path) -> Permissions {
    let open = |name| OwnedFd::from(fs::File::open(directory.join(name)).unwrap());
    Permissions::default().with_directory(open("inside"), Access::ReadWrite).with_directory(open("read-only"), Access::ReadOnly)
}

/// What can be done inside, and not outside.
fn files(directory: &Path) {
    let [inside, read_only, outside] = ["inside", "read-only", "outside"].map(|name| directory.join(name));
    let denied = |result: std::io::Result<()>| {
        let error = result.unwrap_err();
        // A rename or link between directories with different rights is EXDEV, so that programs copy.
        assert!(matches!(error.raw_os_error(), Some(libc::EACCES | libc::EXDEV)), "{error}");
    };
    fs::create_dir(inside.join("sub")).unwrap();
    fs::write(inside.join("new"), "text").unwrap();
    fs::rename(inside.join("new"), inside.join("sub/new")).unwrap();
    fs::hard_link(inside.join("sub/new"), inside.join("hard")).unwrap();
    std::os::unix::fs::symlink("../outside/file", inside.join("soft")).unwrap();
    fs::File::options().write(true).open(inside.join("hard")).unwrap().set_len(1).unwrap();
    assert_eq!(fs::read_dir(&inside).unwrap().count(), 4);
    fs::remove_file(inside.join("sub/new")).unwrap();
    fs::remove_dir(inside.join("sub")).unwrap();

    assert_eq!(fs::read(read_only.join("file")).unwrap(), b"read-only");
    denied(fs::write(read_only.join("file"), ""));
    denied(fs::write(read_only.join("new"), ""));
    denied(fs::remove_file(read_only.join("file")));
    denied(fs::rename(read_only.join("file"), inside.join("moved")));

    for path in [outside.join("file"), inside.join("soft"), inside.join("../outside/file"), "/proc/self/mem".into()] {
        denied(fs::read(path).map(drop));
    }
    denied(fs::read_dir(&outside).map(drop));
    denied(fs::write(outside.join("new"), ""));
    denied(fs::rename(inside.join("hard"), outside.join("hard")));
}

/// As a service does it: with a directory that is open, never with a path from the root.
fn files_by_descriptor(inside: &fs::File, outside: &fs::File) {
    use rustix::fs::{self as at, AtFlags, Mode, OFlags, ResolveFlags, Timestamps};
    let create = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = at::openat2(inside, "new", create, Mode::RWXU, ResolveFlags::BENEATH).unwrap();
    rustix::io::write(&file, b"text").unwrap();
    rustix::io::pwrite(&file, b"n", 0).unwrap();
    let mut bytes = [0; 4];
    rustix::io::pread(&file, &mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"next");
    assert_eq!(at::seek(&file, at::SeekFrom::End(0)).unwrap(), 4);
    assert_eq!(at::fstat(&file).unwrap().st_size, 4);
    at::ftruncate(&file, 2).unwrap();
    at::fallocate(&file, at::FallocateFlags::empty(), 0, 8).unwrap();
    at::fadvise(&file, 0, None, at::Advice::Sequential).unwrap();
    at::fsync(&file).and_then(|()| at::fdatasync(&file)).unwrap();
    let now = at::Timespec { tv_sec: 0, tv_nsec: at::UTIME_NOW };
    at::futimens(&file, &Timestamps { last_access: now, last_modification: now }).unwrap();

    at::mkdirat(inside, "sub", Mode::RWXU).unwrap();
    at::renameat(inside, "new", inside, "sub/new").unwrap();
    at::linkat(inside, "sub/new", inside, "hard", AtFlags::empty()).unwrap();
    at::symlinkat("hard", inside, "soft").unwrap();
    assert_eq!(at::readlinkat(inside, "soft", Vec::new()).unwrap().as_bytes(), b"hard");
    assert!(at::statat(inside, "hard", AtFlags::SYMLINK_NOFOLLOW).is_ok());
    assert!(at::statx(inside, "hard", AtFlags::empty(), at::StatxFlags::BASIC_STATS).is_ok());
    let mut buffer = [std::mem::MaybeUninit::uninit(); 1024];
    let mut entries = at::RawDir::new(inside, &mut buffer);
    assert!(entries.next().is_some_and(|entry| entry.is_ok()));
    at::unlinkat(inside, "sub/new", AtFlags::empty()).unwrap();
    at::unlinkat(inside, "sub", AtFlags::REMOVEDIR).unwrap();

    let denied = rustix::io::Errno::ACCESS;
    let open = |directory, name| at::openat(directory, name, OFlags::RDONLY, Mode::empty()).map(drop);
    assert_eq!(open(inside, "file"), Ok(()));
    assert_eq!(open(outside, "file"), Err(denied));
    assert_eq!(open(inside, "../outside/file"), Err(denied));
    assert_eq!(at::mkdirat(outside, "sub", Mode::RWXU), Err(denied));
    assert_eq!(at::unlinkat(outside, "file", AtFlags::empty()), Err(denied));
}

fn sockets() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"ping").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    // Where Landlock is missing, seccomp has to do.
    Confinement::BestEffort.restrict_files(&Permissions::default().with_sockets()).unwrap();
    confine(Role { sockets: true, ..PLAIN });
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    stream.set_nonblocking(false).unwrap();
    let mut question = String::new();
    stream.read_to_string(&mut question).unwrap();
    assert_eq!(question, "ping");
    stream.write_all(b"pong").unwrap();
    stream.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(client.join().unwrap(), "pong");
}

/// A kernel without this call.
fn lacking(number: libc::c_long, errno: libc::c_int, layer: Layer, is_unsupported: bool) {
    use seccompiler::{SeccompAction, SeccompFilter, TargetArch};
    let rules = [(number, Vec::new())].into_iter().collect();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno.cast_unsigned()), TargetArch::x86_64);
    let program: seccompiler::BpfProgram = filter.unwrap().try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();

    let support = ConfinementSupport::probe();
    let error = match layer {
        Layer::Seccomp => support.seccomp.unwrap_err(),
        Layer::Landlock => support.landlock_abi.unwrap_err(),
    };
    assert_eq!(matches!(error, ConfinementError::Unsupported { layer: found, .. } if found == layer), is_unsupported, "{error}");
    let confine = |confinement: Confinement| match layer {
        Layer::Seccomp => confinement.restrict_calls(PLAIN),
        Layer::Landlock => confinement.restrict_files(&Permissions::default()),
    };
    confine(Confinement::Off).unwrap();
    confine(Confinement::BestEffort).unwrap();
    assert_eq!(confine(Confinement::Required).unwrap_err().to_string(), error.to_string());
}
