//! Compiling ahead of time, from outside: the library's `compile`, the commands, and many processes with one cache.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod support {
    pub(crate) mod command;
    pub(crate) mod engine;
}

use std::{
    env, fs,
    ops::ControlFlow,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use mote_vmm::{
    Artifact, ArtifactCache, CacheKey, CompileError, CompileLimits, CompileOptions, CompileProgress, TargetCpu, compile,
};
use support::command::{mote, payload, run, run_with_input};

const CACHE: &str = "MOTE_TEST_CACHE";

fn quiet(_: CompileProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn with_limits(limits: CompileLimits) -> CompileOptions {
    CompileOptions { limits, ..CompileOptions::default() }
}

/// A module with so many functions of so many instructions.
fn large(functions: usize, instructions: usize) -> Vec<u8> {
    let add = "local.get 0 i32.const 7 i32.mul i32.const 3 i32.add local.tee 0 drop ".repeat(instructions / 8);
    let function = format!("(func (export \"NAME\") (param i32) (result i32) {add} local.get 0)");
    let body: String = (0..functions).map(|index| function.replace("NAME", &format!("f{index}"))).collect();
    wat::parse_str(format!("(module {body})")).unwrap()
}

#[test]
fn good_modules_are_compiled_in_both_formats() {
    for module in ["(module)", "(module (memory 1) (func (export \"f\")))", "\u{feff};; comment\n(module (func))"] {
        let from_text = compile(module.as_bytes(), &CompileOptions::default(), quiet).unwrap();
        let binary = wat::parse_str(module.trim_start_matches('\u{feff}')).unwrap();
        let from_binary = compile(&binary, &CompileOptions::default(), quiet).unwrap();
        assert_eq!(from_text.bytes(), from_binary.bytes());
    }
    for target_cpu in TargetCpu::ALL {
        for fuel in [false, true] {
            let options = CompileOptions { fuel, target_cpu, ..CompileOptions::default() };
            let artifact = compile(&large(3, 80), &options, quiet).unwrap();
            assert_eq!((artifact.counts_fuel(), artifact.cpu_features()), (fuel, options.cpu_features()));
        }
    }
}

#[test]
fn every_payload_is_compiled() {
    let mut compiled = 0;
    let directory = payload("");
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "wat") {
            let result = compile(&fs::read(&path).unwrap(), &CompileOptions::default(), quiet);
            assert!(result.is_ok(), "{}: {result:?}", path.display());
            compiled += 1;
        }
    }
    assert!(compiled > 20, "{compiled}");
}

#[test]
fn an_invalid_module_says_what_is_wrong() {
    let message = |module: &[u8]| match compile(module, &CompileOptions::default(), quiet) {
        Err(CompileError::Invalid { message }) => message,
        other => panic!("{other:?}"),
    };
    assert!(message(b"\0asm\x01\0\0\0\xff").contains("section"));
    assert!(message(&wat::parse_str("(module (func (result i32)))").unwrap()).contains("type mismatch"));
    assert!(message(b"(module (fun))").contains("expected valid module field"));
    assert!(message(b"\xff\xfe").contains("neither"));
    assert!(message(b"(module (memory 1 1 shared))").contains("threads"));
    message(b"");
    message(b"\0asm\x0d\0\x01\0");
    let cut_off = large(20, 200);
    message(&cut_off[..cut_off.len() / 2]);
}

#[test]
fn a_limit_ends_one_compilation_and_no_other() {
    let module = large(200, 4000);
    let limits = CompileLimits::default();
    let long_function = large(1, 200_000);
    for memory_bytes in [20 << 20, 50 << 20, 120 << 20] {
        let memory = compile(&long_function, &with_limits(CompileLimits { memory_bytes, ..limits }), quiet);
        assert!(matches!(memory, Err(CompileError::Memory { .. })), "{memory:?}");
    }
    let artifact = compile(&module, &with_limits(CompileLimits { artifact_bytes: 64 << 10, ..limits }), quiet);
    assert!(matches!(artifact, Err(CompileError::ArtifactTooLarge { .. })), "{artifact:?}");
    let started = Instant::now();
    let time = compile(&module, &with_limits(CompileLimits { time: Duration::from_millis(50), ..limits }), quiet);
    assert!(matches!(time, Err(CompileError::Time { .. })), "{time:?}");
    assert!(started.elapsed() < Duration::from_secs(5));
    compile(&large(3, 80), &with_limits(limits), quiet).unwrap();
}

#[test]
fn an_observer_sees_progress_and_can_end_it() {
    let module = large(300, 4000);
    let mut seen = Vec::new();
    let result = compile(&module, &CompileOptions::default(), |progress| {
        seen.push(progress.functions);
        match progress.functions {
            Some((compiled, 300)) if compiled > 30 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    });
    assert!(matches!(result, Err(CompileError::Cancelled)), "{result:?}");
    assert!(seen.is_sorted() && seen.iter().flatten().all(|(_, all)| *all == 300), "{seen:?}");
}

/// Processes of this one that compile.
fn compilers() -> Vec<i32> {
    let children = fs::read_to_string("/proc/thread-self/children").unwrap();
    children.split_whitespace().map(|id| id.parse().unwrap()).collect()
}

#[test]
fn a_compiler_that_is_killed_is_told_by_its_signal() {
    let result = compile(&large(500, 4000), &CompileOptions::default(), |progress| {
        if progress.functions.is_some() {
            for id in compilers() {
                let id = rustix::process::Pid::from_raw(id).unwrap();
                rustix::process::kill_process(id, rustix::process::Signal::KILL).unwrap();
            }
        }
        ControlFlow::Continue(())
    });
    match result {
        Err(CompileError::Crashed { how, .. }) => assert_eq!(how, "SIGKILL"),
        other => panic!("{other:?}"),
    }
    assert!(compilers().is_empty());
}

#[test]
fn a_running_compiler_can_do_nothing_else() {
    let mut looked = false;
    compile(&large(500, 4000), &CompileOptions::default(), |progress| {
        if progress.functions.is_some() && !looked {
            let ids = compilers();
            looked = !ids.is_empty();
            for id in ids {
                for thread in fs::read_dir(format!("/proc/{id}/task")).unwrap() {
                    let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
                    for line in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
                        assert!(status.contains(line), "{status}");
                    }
                }
                let limits = fs::read_to_string(format!("/proc/{id}/limits")).unwrap();
                let limit = |name: &str| limits.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
                assert!(limit("Max core file size").contains(" 0 "), "{limits}");
                assert!(limit("Max address space").contains(&(6_u64 << 30).to_string()), "{limits}");
                assert!(limit("Max file size").contains(&(1_u64 << 30).to_string()), "{limits}");
            }
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(looked);
}

/// It ends with who started it, even if that is killed.
#[test]
fn no_compiler_outlives_its_parent() {
    let directory = tempfile::tempdir().unwrap();
    let module = directory.path().join("large.wasm");
    fs::write(&module, large(3000, 4000)).unwrap();
    let output = directory.path().join("out.cwasm");
    let mut parent = mote(["compile".as_ref(), module.as_os_str(), "-o".as_ref(), output.as_os_str()]).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let children = loop {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", parent.id())).unwrap_or_default();
        if !children.trim().is_empty() {
            break children;
        }
        assert!(Instant::now() < deadline, "no compiler was started");
        thread::sleep(Duration::from_millis(2));
    };
    // Until it is what it says it is.
    thread::sleep(Duration::from_millis(200));
    parent.kill().unwrap();
    parent.wait().unwrap();
    let child = children.trim();
    let is_alive = || {
        let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("State:") && !line.contains("zombie"))
    };
    while is_alive() {
        assert!(Instant::now() < deadline, "the compiler lives on");
        thread::sleep(Duration::from_millis(5));
    }
    assert!(!output.exists());
}

#[test]
fn the_command_writes_what_can_be_opened() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("add.cwasm");
    let compile = |options: &[&str]| {
        let module = payload("add.wat");
        let mut command = mote(["compile"]);
        command.arg(module).arg("-o").arg(&output).args(options);
        run_with_input(&mut command, b"")
    };
    let outcome = compile(&["--target-cpu", "v2", "--fuel"]).expect(0);
    assert_eq!((outcome.text(), &*outcome.stderr), ("", ""));
    let artifact = Artifact::open(&output).unwrap();
    assert!(artifact.counts_fuel());
    compile(&["--target-cpu=x86-64"]).expect(0);
    let again = Artifact::open(&output).unwrap();
    assert!(!again.counts_fuel() && again.cpu_features().is_empty());
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    assert!(compile(&["--target-cpu=pdp-11"]).expect(2).stderr.contains("x86-64-v3"));

    let text = fs::read(payload("add.wat")).unwrap();
    let to_stdout = run_with_input(&mut mote(["compile", "-", "-o", "-", "--target-cpu=x86-64"]), &text).expect(0);
    assert_eq!(to_stdout.stdout, fs::read(&output).unwrap());
}

#[test]
fn what_the_command_cannot_compile_has_status_126() {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("out.cwasm");
    let output = output.to_str().unwrap();
    for (module, what) in [
        (&b"(module (func (result i32)))"[..], "type mismatch"),
        (b"", "is empty"),
        (b"hello there", "not a WebAssembly module"),
        (b"\0asm\x0d\0\x01\0", "component"),
    ] {
        let outcome = run_with_input(&mut mote(["compile", "-", "-o", output]), module).expect(126);
        assert!(outcome.stderr.starts_with("mote: ") && outcome.stderr.contains(what), "{outcome:?}");
        assert!(!Path::new(output).exists());
    }
    let nowhere = run_with_input(&mut mote(["compile", "-", "-o", "/nonexistent/x.cwasm"]), b"(module)").expect(125);
    assert!(nowhere.stderr.contains("cannot write /nonexistent/x.cwasm"), "{nowhere:?}");
    let slow = run_with_input(&mut mote(["compile", "-", "-o", output, "--timeout=1ms"]), b"(module)").expect(126);
    assert!(slow.stderr.contains("time"), "{slow:?}");
    run(["compile", "a.wasm"]).expect(2);
}

#[test]
fn the_cache_is_listed_and_cleared() {
    let directory = tempfile::tempdir().unwrap();
    let cache_command = |action: &str| {
        let mut command = mote(["cache", action]);
        run_with_input(command.env("XDG_CACHE_HOME", directory.path()), b"")
    };
    let path = directory.path().join("mote");
    assert_eq!(cache_command("dir").expect(0).text(), format!("{}\n", path.display()));
    assert_eq!(cache_command("ls").expect(0).text(), "0 compiled modules, 0 B\n");
    let cache = ArtifactCache::open(&path, ArtifactCache::DEFAULT_MAX_BYTES).unwrap();
    cache.get_or_compile(b"(module)", &CompileOptions::default(), quiet).unwrap();
    let compiled_again = |_| panic!("compiled again");
    cache.get_or_compile(b"(module)", &CompileOptions::default(), compiled_again).unwrap();
    let list = cache_command("ls").expect(0);
    assert!(list.text().contains("ago\n1 compiled module, "), "{list:?}");
    assert!(cache_command("clear").expect(0).text().starts_with("removed 1 compiled module, "));
    assert!(cache.list().unwrap().is_empty());
}

#[test]
fn processes_share_a_cache() {
    let directory = tempfile::tempdir().unwrap();
    let children: Vec<_> = (0..4)
        .map(|_| {
            let mut command = Command::new(env::current_exe().unwrap());
            command.args(["--exact", "one_of_many", "--ignored", "--nocapture"]).env(CACHE, directory.path());
            command.spawn().unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let left = fs::read_dir(directory.path().join("cache")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| name.to_string_lossy().ends_with(".cwasm")));
}

#[test]
#[ignore = "another test starts it, several times"]
fn one_of_many() {
    let Some(directory) = env::var_os(CACHE) else { return };
    let path = Path::new(&directory).join("cache");
    let artifact = compile(b"(module (func (export \"f\")))", &CompileOptions::default(), quiet).unwrap();
    let cache = ArtifactCache::open(&path, 3 * artifact.bytes() + 1000).unwrap();
    for round in 0..100_u8 {
        let key = CacheKey::new(&[round % 5], &CompileOptions::default());
        if let Some(found) = cache.get(&key).unwrap() {
            assert_eq!((found.bytes(), found.text()), (artifact.bytes(), artifact.text()));
        }
        cache.insert(&key, &artifact).unwrap();
    }
}
