//! What a confined compiler can do and cannot, and that what it makes is what wasmtime runs. A forbidden call ends the process,
//! so each happens in a child: this program again, with one case.

use std::{
    env, fs,
    io::Write,
    net::TcpListener,
    os::unix::process::{ExitStatusExt, parent_id},
    process::{Command, ExitStatus},
    ptr, thread,
};

use mote_wasmtime_config::Options;
use wasmtime::{Engine, Instance, Module, Store, Trap};

use super::*;

const CASE: &str = "MOTE_COMPILER_CASE";
/// How a child ends in which all went well.
const DONE: i32 = 42;

fn request() -> Request {
    Request {
        counts_fuel: false,
        features: Vec::new(),
        memory_bytes: 4 << 30,
        cpu_seconds: 60,
        artifact_bytes: 1 << 20,
        threads: 2,
        parent: parent_id(),
    }
}

fn outcome(case: &str) -> ExitStatus {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "tests::child", "--ignored", "--nocapture"]).env(CASE, case).env_remove("RUST_BACKTRACE");
    let output = command.stdin(fs::File::open("/proc/self/exe").unwrap()).output().unwrap();
    println!("{case}: {output:?}");
    output.status
}

#[test]
fn a_forbidden_call_ends_the_process() {
    let cases = [
        "open",
        "socket",
        "exec",
        "fork",
        "thread",
        "write elsewhere",
        "read elsewhere",
        "executable memory",
        "executable later",
        "map a file",
        "signal to the parent",
        "prctl",
        "on another thread",
    ];
    for case in cases {
        assert_eq!(outcome(case).signal(), Some(libc::SIGSYS), "{case}");
    }
}

#[test]
fn what_compiling_needs_is_allowed() {
    for case in ["compile", "read the module", "write", "file without seccomp", "another parent"] {
        assert_eq!(outcome(case).code(), Some(DONE), "{case}");
    }
    assert_eq!(outcome("panic").code(), Some(101));
    assert_eq!(outcome("abort").signal(), Some(libc::SIGABRT));
    assert_eq!(outcome("null pointer").signal(), Some(libc::SIGSEGV));
    assert_eq!(outcome("memory").code(), Some(protocol::OUT_OF_MEMORY));
}

#[test]
#[ignore = "the other tests start it with a case"]
fn child() {
    let Ok(case) = env::var(CASE) else { return };
    run_case(&case);
    std::process::exit(DONE);
}

fn run_case(case: &str) {
    if case == "another parent" {
        let error = confinement::limit(&Request { parent: std::process::id(), ..request() }).unwrap_err();
        return assert!(error.to_string().contains("has ended"), "{error}");
    }
    if case == "file without seccomp" {
        confinement::limit(&request()).unwrap();
        return match confinement::forbid_files() {
            Ok(true) => assert_eq!(fs::read("/proc/version").unwrap_err().raw_os_error(), Some(libc::EACCES)),
            Ok(false) => eprintln!("skipped: this kernel has no Landlock"),
            Err(error) => panic!("{error}"),
        };
    }
    let engine = compile::engine(false, &[]).unwrap();
    let (module, bytes) = standard_input().unwrap();
    let request = request();
    confine(&request).unwrap();
    // Closed, but a call is forbidden before anybody looks.
    let other = 9;
    match case {
        "compile" => {
            let artifact = compile::compile(&engine, b"(module (func))".to_vec(), &request).unwrap();
            assert!(!artifact.is_empty());
        }
        "read the module" => {
            let mut start = [0; 4];
            module.read_exact_at(&mut start, 0).unwrap();
            assert!(bytes > 4 && &start == b"\x7fELF");
        }
        "write" => std::io::stdout().write_all(b"artifact").unwrap(),
        "memory" => drop(std::hint::black_box(vec![1_u8; 5 << 30])),
        "panic" => rayon::scope(|scope| scope.spawn(|_| panic!("on purpose"))),
        "abort" => std::process::abort(),
        "null pointer" => {
            // SAFETY: it is not; that it ends the process is what is tested.
            unsafe { ptr::without_provenance::<u8>(16).read_volatile() };
        }
        "open" => drop(fs::File::open("/proc/version")),
        "socket" => drop(TcpListener::bind("127.0.0.1:0")),
        "exec" => {
            let (path, end) = (c"/bin/true", ptr::null::<libc::c_char>());
            // SAFETY: both lists end with a null pointer.
            unsafe { libc::execve(path.as_ptr(), [path.as_ptr(), end].as_ptr(), [end].as_ptr()) };
        }
        // SAFETY: no child comes of it.
        "fork" => drop(unsafe { libc::fork() }),
        "thread" => drop(thread::Builder::new().spawn(|| ())),
        // SAFETY: there is no such descriptor.
        "write elsewhere" => drop(unsafe { libc::write(other, b"x".as_ptr().cast(), 1) }),
        // SAFETY: there is no such descriptor.
        "read elsewhere" => drop(unsafe { libc::pread(other, [0_u8; 1].as_mut_ptr().cast(), 1, 0) }),
        "executable memory" => drop(map(libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)),
        "executable later" => {
            let page = map(libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1);
            // SAFETY: nothing refers to the page.
            unsafe { libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_EXEC) };
        }
        "map a file" => drop(map(libc::PROT_READ, libc::MAP_PRIVATE, other)),
        // SAFETY: signal 0 does nothing.
        "signal to the parent" => drop(unsafe { libc::kill(request.parent.cast_signed(), 0) }),
        // SAFETY: it only asks.
        "prctl" => drop(unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) }),
        "on another thread" => drop(rayon::broadcast(|_| fs::File::open("/proc/version").is_ok())),
        other => panic!("{other}"),
    }
}

fn map(protection: libc::c_int, flags: libc::c_int, file: libc::c_int) -> *mut libc::c_void {
    // SAFETY: a new mapping at an address that the kernel chooses changes no memory that exists.
    unsafe { libc::mmap(ptr::null_mut(), 4096, protection, flags, file, 0) }
}

const LOAD: &str = r#"(module (memory 1) (data (i32.const 8) "\2a")
    (func (export "f") (param i32) (result i32) (i32.load (local.get 0))))"#;

fn artifact(counts_fuel: bool) -> Vec<u8> {
    let engine = compile::engine(counts_fuel, &[]).unwrap();
    compile::compile(&engine, LOAD.as_bytes().to_vec(), &request()).unwrap()
}

/// As a guest does it.
fn load(counts_fuel: bool, artifact: &[u8]) -> Result<(Engine, Module), wasmtime::Error> {
    let engine = Engine::new(&mote_wasmtime_config::config(Options { fuel: counts_fuel }))?;
    // SAFETY: it comes from this compiler.
    let module = unsafe { Module::deserialize(&engine, artifact)? };
    Ok((engine, module))
}

#[test]
fn wasmtime_runs_what_is_compiled() {
    for counts_fuel in [false, true] {
        let (engine, module) = load(counts_fuel, &artifact(counts_fuel)).unwrap();
        let mut store = Store::new(&engine, ());
        if counts_fuel {
            store.set_fuel(1000).unwrap();
        }
        let instance = Instance::new(&mut store, &module, &[]).unwrap();
        let function = instance.get_typed_func::<u32, u32>(&mut store, "f").unwrap();
        assert_eq!(function.call(&mut store, 8).unwrap(), 42);
        let trap = function.call(&mut store, 65_533).unwrap_err();
        assert_eq!(trap.downcast_ref::<Trap>(), Some(&Trap::MemoryOutOfBounds));
        assert!(load(!counts_fuel, &artifact(counts_fuel)).is_err());
    }
}

#[test]
fn what_is_wrong_with_a_module_has_a_status() {
    let engine = compile::engine(false, &[]).unwrap();
    let failure = |module: &[u8]| compile::compile(&engine, module.to_vec(), &request()).unwrap_err();
    for module in
        [&b""[..], b"\xff", b"\0asm", b"(module (fun))", b"(module (func (result i32)))", b"(module (memory 1 1 shared))"]
    {
        assert_eq!(failure(module).status, protocol::INVALID, "{module:?}");
    }
    let tiny = Request { artifact_bytes: 100, ..request() };
    let large = compile::compile(&engine, LOAD.as_bytes().to_vec(), &tiny).unwrap_err();
    assert_eq!(large.status, protocol::ARTIFACT_TOO_LARGE);
    assert!(compile::engine(false, &["has_magic".into()]).is_err());
}
