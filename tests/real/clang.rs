//! clang and wasm-ld 22 compile and link programs, which then run.

use std::path::PathBuf;

use super::both::{Both, Case, GUEST, fetched, fixture, programs};

/// Libraries that programs are linked with.
const C: [&str; 2] = ["-lc", "-lclang_rt.builtins"];
const CPP: [&str; 4] = ["-lc++", "-lc++abi", "-lc", "-lclang_rt.builtins"];

fn clang(tool: &str) -> Option<Case> {
    Some(Case::new(fetched("llvm.wasm")?).arguments(&[tool]))
}

#[test]
fn a_c_program() {
    let Some(clang) = clang("clang") else { return };
    let compiled =
        with_resources(clang).files(fixture("clang")).arguments(&["-c", "-O2", "/w/hello.c", "-o", "/w/hello.o"]).exits(0);
    let linked = link(compiled, "hello", &C);
    assert_eq!(run(&linked, "hello", &["there"]).exits(2).text(), "hello, there\nNo such file or directory\n");
}

#[test]
fn a_cpp_program() {
    let Some(clang) = clang("clang++") else { return };
    let arguments = ["-c", "-O1", "-fno-exceptions", "/w/shapes.cpp", "-o", "/w/shapes.o"];
    let compiled = with_resources(clang).files(fixture("clang")).arguments(&arguments).exits(0);
    let linked = link(compiled, "shapes", &CPP);
    assert_eq!(run(&linked, "shapes", &[]).exits(0).text(), "100 shapes, 243861.566770\n");
}

#[test]
fn a_program_that_is_wrong() {
    let Some(clang) = clang("clang") else { return };
    let arguments = ["-c", "-Werror", "-DGREETING=2", "/w/hello.c", "-o", "/w/hello.o"];
    let both = with_resources(clang).files(fixture("clang")).arguments(&arguments).exits(1);
    assert_eq!(both.mote.outcome.stderr, both.wasmtime.outcome.stderr);
    assert!(both.mote.outcome.stderr.contains("error: 'GREETING' macro redefined"), "{}", both.mote.outcome.stderr);
}

/// The headers in guest RAM, the source in a directory of the host.
#[test]
fn resources_in_a_ramdisk() {
    let Some(clang) = clang("clang") else { return };
    let clang = clang.root(&programs().join("llvm-resources"), &programs().join("llvm-resources.tar"));
    let arguments = ["--sysroot=/", "-resource-dir=/", "-c", "-O2", "/w/hello.c", "-o", "/w/hello.o"];
    clang.files(fixture("clang")).arguments(&arguments).exits(0);
}

fn with_resources(case: Case) -> Case {
    case.directory(&programs().join("llvm-resources"), "/usr")
}

/// Links `NAME.o` of what was compiled to `NAME.wasm`.
#[track_caller]
fn link(compiled: Both, name: &str, libraries: &[&str]) -> Both {
    let from = compiled.mote.path("");
    let linker = with_resources(clang("wasm-ld").expect("it was there"));
    let file = |ending| format!("{GUEST}/{name}.{ending}");
    let start = ["-L/usr/lib/wasm32-unknown-wasip1", "-L/usr/lib/wasm32-wasip1", "/usr/lib/wasm32-wasip1/crt1-command.o"];
    linker.files(from).arguments(&start).arguments(&[&file("o")]).arguments(libraries).arguments(&["-o", &file("wasm")]).exits(0)
}

fn run(linked: &Both, name: &str, arguments: &[&str]) -> Case {
    let module: PathBuf = linked.mote.path(&format!("{name}.wasm"));
    Case::new(module).arguments(arguments)
}
