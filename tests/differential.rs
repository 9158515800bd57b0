//! Real programs in `mote run` and in `wasmtime run`: both must print the same bytes and end with the same status.
//!
//! wasmtime shares neither engine nor WASI with mote, so what both agree on is right. Some results are also named here:
//! two runtimes that fail alike would agree too. `scripts/fetch-programs` brings the programs and wasmtime; without them
//! the tests are skipped, or fail where `MOTE_REQUIRE_PROGRAMS` is set.

#![allow(clippy::expect_used, clippy::cast_possible_truncation, reason = "a test fails by panicking; low bytes are wanted")]

mod support {
    pub(crate) mod engine;
    pub(crate) mod kvm;
    pub(crate) mod programs;
}

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use assert_cmd::Command;
use support::{
    engine, kvm,
    programs::{all_there, programs, repository},
};

/// wasmtime compiles CPython for ten seconds when its cache is cold, and longer beside other tests.
const LIMIT: Duration = Duration::from_secs(120);

// --- Running in both -------------------------------------------------------------------------------------------------

/// A module, and the runtimes to run it in are there.
struct Program {
    wasmtime: PathBuf,
    module: PathBuf,
}

impl Program {
    /// A file of `target/programs/`; `None`, with the reason on standard error, if it cannot be run here.
    fn fetched(name: &str) -> Option<Self> {
        Self::find(name, programs().join(name))
    }

    /// A file of `wasm-payloads/`.
    fn payload(name: &str) -> Option<Self> {
        Self::find(name, repository().join("wasm-payloads").join(name))
    }

    fn find(name: &str, module: PathBuf) -> Option<Self> {
        let wasmtime = programs().join("bin/wasmtime");
        let is_usable = all_there(name, &[&wasmtime, &module]) && kvm::usable();
        is_usable.then_some(Self { wasmtime, module })
    }

    fn with<'a>(&'a self, arguments: &'a [&'a str]) -> Case<'a> {
        Case { program: self, options: &[], mote_options: &[], arguments, input: b"" }
    }
}

/// One command line. Standard input is empty unless given.
#[derive(Clone, Copy)]
struct Case<'a> {
    program: &'a Program,
    options: &'a [&'a str],
    mote_options: &'a [&'a str],
    arguments: &'a [&'a str],
    input: &'a [u8],
}

impl<'a> Case<'a> {
    /// Options before the module's name, which both runtimes spell alike.
    fn options(self, options: &'a [&'a str]) -> Self {
        Self { options, ..self }
    }

    fn mote_options(self, mote_options: &'a [&'a str]) -> Self {
        Self { mote_options, ..self }
    }

    fn input(self, input: &'a [u8]) -> Self {
        Self { input, ..self }
    }

    /// Both runtimes print the same to both streams and exit with `status`; the common standard output.
    #[track_caller]
    fn exits(self, status: i32) -> String {
        let (wasmtime, mote) = self.run_both(status);
        assert_eq!(text(&mote.stderr), text(&wasmtime.stderr), "standard error, mote and wasmtime: {}", self.line());
        self.same_output(&wasmtime, &mote)
    }

    /// Both runtimes end it with a trap, of which each tells in its own words on standard error.
    #[track_caller]
    fn traps(self) -> String {
        let (wasmtime, mote) = self.run_both(134);
        self.same_output(&wasmtime, &mote)
    }

    /// An export of it gives the same results; wasmtime warns on standard error that calling one is experimental.
    #[track_caller]
    fn returns(self) -> String {
        let (wasmtime, mote) = self.run_both(0);
        assert_eq!(text(&mote.stderr), "", "{}", self.line());
        self.same_output(&wasmtime, &mote)
    }

    #[track_caller]
    fn run_both(&self, status: i32) -> (Output, Output) {
        let wasmtime = self.run(Command::new(&self.program.wasmtime), &[]);
        let mote = self.run_mote(self.mote_options);
        assert_eq!(wasmtime.status.code(), Some(status), "wasmtime: {}: {wasmtime:?}", self.line());
        assert_eq!(mote.status.code(), Some(status), "mote: {}: {mote:?}", self.line());
        (wasmtime, mote)
    }

    fn run_mote(&self, options: &[&str]) -> Output {
        self.run(Command::from_std(engine::mote()), &[engine::under_test().options(), options].concat())
    }

    fn run(&self, mut command: Command, options: &[&str]) -> Output {
        command.arg("run").args(options).args(self.options).arg(&self.program.module).args(self.arguments);
        // With it, wasmtime writes pages to standard error about a trap.
        command.env_remove("RUST_BACKTRACE").write_stdin(self.input).timeout(LIMIT).output().expect("the runtime does not start")
    }

    #[track_caller]
    fn same_output(&self, wasmtime: &Output, mote: &Output) -> String {
        let (ours, theirs) = (text(&mote.stdout), text(&wasmtime.stdout));
        // Bytes, not texts, are compared: invalid UTF-8 would look alike.
        assert!(mote.stdout == wasmtime.stdout, "{}\nmote: {ours}\nwasmtime: {theirs}", self.line());
        ours
    }

    fn line(&self) -> String {
        let Self { program, options, mote_options, arguments, .. } = self;
        format!("{mote_options:?} {options:?} {} {arguments:?}", program.module.display())
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

// --- Interpreters ----------------------------------------------------------------------------------------------------

#[test]
fn quickjs() {
    let Some(quickjs) = Program::fetched("quickjs.wasm") else { return };
    let evaluate = |source| quickjs.with(&["--std", "-e", source]).exits(0);

    assert_eq!(evaluate("print([1,2,3].map(x => x * x).join(), 2n ** 100n)"), "1,4,9 1267650600228229401496703205376\n");
    evaluate("let f = 1n; for (let n = 1n; n <= 1000n; n++) f *= n; print(f, f % 1000003n, -f / 7n ** 500n)");
    evaluate(
        "let x = 1, a = []; for (let i = 0; i < 20000; i++) a.push(x = (x * 48271) % 2147483647);
         a.sort((p, q) => p - q); print(a.filter((_, i) => i % 1999 == 0)); print(a.map(String).sort().slice(0, 99))",
    );
    // What an interpreter of WebAssembly may get wrong first: rounding, signs of zero, conversions, shifts.
    evaluate(
        "let x = 0.1; for (let i = 0; i < 2000; i++) { x = (x * 997.13) % 1;
         print(Math.sin(x), Math.exp(x), Math.pow(x, -7.5), Math.fround(x), Math.atan2(-x, 0), Math.cbrt(x), x * 2 ** 40 | 0,
         Math.trunc(-x), Math.round(x * 9 - 4), Math.imul(x * 2 ** 31, i), (x * 2 ** 52 >>> i), Math.hypot(x, i)) }",
    );
    evaluate("print('žluťoučký 猫 🐈'.normalize('NFD'), /(?<a>\\p{L}+)/u.exec('1кот2').groups.a, JSON.stringify([null, 1e21]))");

    let error = quickjs.with(&["-e", "function f() { throw new RangeError('too far') } print('before'); f()"]);
    assert_eq!(error.exits(1), "before\n");
    quickjs.with(&["-e", "this is no program"]).exits(1);
    quickjs.with(&["--std", "-e", "print('bye'); std.exit(42)"]).exits(42);
    quickjs.with(&["/no/such/file.js"]).exits(1);

    let upper = quickjs.with(&["--std", "-e", "for (let l; (l = std.in.getline()) !== null;) print(l.toUpperCase())"]);
    assert_eq!(upper.input("a line\nanother ž\n\nno newline".as_bytes()).exits(0), "A LINE\nANOTHER Ž\n\nNO NEWLINE\n");
    assert_eq!(upper.exits(0), "");
    upper.input("0123456789abcdef\n".repeat(50_000).as_bytes()).exits(0);
}

#[test]
fn cpython() {
    let Some(cpython) = Program::fetched("cpython.wasm") else { return };
    let run = |source| cpython.with(&["-c", source]).exits(0);

    assert_eq!(run("import sys; print(sys.version_info[:3])"), "(3, 12, 0)\n");
    run("import sys; print(sys.version, sys.argv, sys.platform, sys.byteorder, sys.maxsize, sys.stdout.encoding)");
    run("print(7 ** 4000 // 3 ** 2000, pow(3, 10 ** 40, 2 ** 127 - 1), -(10 ** 50) % 997, (2 ** 64).bit_length())");
    run("import random; r = random.Random(7); a = [r.random() for _ in range(20000)]; a.sort(); print(a[::1999], sum(a))");
    run("import math; print([f(0.7) for f in (math.sin, math.exp, math.gamma, math.erf, math.tanh)], 0.1 + 0.2, 1e-320, -0.0)");
    assert_eq!(
        run("import hashlib; d = b'abc' * 99999; print(*(hashlib.new(n, d).hexdigest() for n in ('md5', 'sha1')))"),
        "f9d7fa7d85f20afc206ef67d953737f6 66fb056a227e07042056ba8f1b6e5cc6039558d1\n"
    );
    run("import hashlib; print([hashlib.new(n, bytes(1000)).hexdigest() for n in sorted(hashlib.algorithms_guaranteed)[:-2]])");
    run("import json; print(json.dumps({'b': [2.5, None, True], 'a': 'é\\n'}, indent=1, sort_keys=True), json.loads('[1e3]'))");
    run("import re, collections; print(re.findall(r'\\w+', 'кот, cat'), collections.Counter('banana'))");
    assert_eq!(run("print('žluťoučký кот 猫 🐈')"), "žluťoučký кот 猫 🐈\n");
    run("import time; t = time.time(); time.sleep(0.02); print(time.time() - t >= 0.02)");
    let environment = cpython.with(&["-c", "import os; print(dict(os.environ), os.getcwd())"]);
    environment.exits(0);
    environment.options(&["--env", "A=1", "--env", "B=é"]).exits(0);

    cpython.with(&["-c", "print('before'); {}['ключ']"]).exits(1);
    cpython.with(&["-c", "def f(n): return f(n + 1)\nf(0)"]).exits(1);
    cpython.with(&["-c", "this is no program"]).exits(1);
    cpython.with(&["-c", "open('/no/such/file')"]).exits(1);
    cpython.with(&["-c", "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"]).exits(7);
    cpython.with(&["-c", "import sys; sys.exit('with a message')"]).exits(1);

    let read = cpython.with(&["-c", "import sys; t = sys.stdin.read(); print(len(t), t[-9:].upper())"]);
    assert_eq!(read.input("words\nand žluťoučký".as_bytes()).exits(0), "19 ŽLUŤOUČKÝ\n");
    assert_eq!(read.exits(0), "0 \n");
    // A program on standard input, as in `python <program`.
    assert_eq!(cpython.with(&[]).input(b"for n in range(3):\n    print(n)\n").exits(0), "0\n1\n2\n");
}

// --- Compiled programs -----------------------------------------------------------------------------------------------

#[test]
fn c() {
    let Some(hello) = Program::fetched("c-hello.wasm") else { return };
    assert!(hello.with(&["a", "b c", "", "ž"]).exits(0).starts_with("hello from C, 4 arguments\nargv[1] = a\nargv[2] = b c\n"));
    assert!(hello.with(&[]).options(&["--env", "GREETING=good = day"]).exits(0).contains("GREETING = good = day\n"));
    hello.with(&["fail"]).exits(3);
}

#[test]
fn cpp() {
    let Some(stl) = Program::fetched("cpp-stl.wasm") else { return };
    assert!(stl.with(&[]).exits(0).starts_with("sorted 1, median 2143152579\n"));
}

#[test]
fn go() {
    let Some(hello) = Program::fetched("go-hello.wasm") else { return };
    let output = hello.with(&["a", "b c", "ž"]).options(&["--env", "B=2", "--env", "A=1"]).exits(0);
    assert!(output.contains("args: a b c ž\nenv: A=1\nenv: B=2\n"), "{output}");
    hello.with(&["fail"]).exits(3);
}

#[test]
fn tinygo() {
    let Some(module) = Program::fetched("tinygo.wasm") else { return };
    assert_eq!(module.with(&[]).exits(0), "");
}

#[test]
fn compute() {
    let Some(fib) = Program::fetched("fib.wasm") else { return };
    assert_eq!(fib.with(&["23"]).exits(0), "fib(23) = 28657\n");
    // It says so on standard error, by the name that it was given.
    fib.with(&["many"]).exits(2);
    // Size, and how the output begins if it is known from elsewhere.
    let kernels = [
        ("nbody", "20000", ""),
        ("spectral-norm", "100", "1.274219991\n"),
        ("fannkuch", "7", "fannkuch(7) = 16, sum 228\n"),
        ("mandelbrot", "65", ""),
        ("matrix", "70", ""),
        ("sha256", "2", ""),
        ("lz", "1", ""),
        ("json", "2", "107872 values in 1371170 bytes, sum 144095557.982, "),
        ("regex", "1", ""),
        ("quicksort", "100001", ""),
    ];
    for (name, size, start) in kernels {
        let Some(kernel) = Program::fetched(&format!("{name}.wasm")) else { return };
        let output = kernel.with(&[size]).exits(0);
        assert!(output.starts_with(start), "{name}: {output}");
    }
}

/// Those that `scripts/bench` measures, with little to do.
#[test]
fn scripts() {
    let scripts = [
        ("pidigits", "pidigits", "100", "3141592653…5342117067, 100 digits, sum 471\n"),
        ("richards", "richards", "2", "2 rounds, packets 2322, holds 928\n"),
        ("deltablue", "deltablue", "100", "chain 9999, projection [1170, 5, 124280, 224280]\n"),
        ("json", "json_document", "1", ""),
    ];
    for (interpreter, folder) in [("quickjs.wasm", "js"), ("cpython.wasm", "py")] {
        let Some(interpreter) = Program::fetched(interpreter) else { return };
        let directory = format!("{}::/scripts", repository().join("tests/programs").join(folder).display());
        for (js, py, size, expected) in scripts {
            let file = format!("/scripts/{}.{folder}", if folder == "js" { js } else { py });
            let output = interpreter.with(&[&file, size]).options(&["--dir", &directory]).exits(0);
            assert!(output == expected || js == "json" && output.ends_with("balance 8507.5, points 13486\n"), "{file}: {output}");
        }
    }
}

#[test]
fn coremark() {
    let Some(coremark) = Program::fetched("coremark.wasm") else { return };
    // All but what depends on time.
    let results = |mote_options: &[&str]| {
        let (wasmtime, mote) = coremark.with(&["50"]).mote_options(mote_options).run_both(0);
        let stable = |output: &Output| -> String {
            let of_time = ["Total ticks", "Total time", "Iterations/Sec", "CoreMark 1.0"];
            let output = text(&output.stdout);
            output.split_inclusive('\n').filter(|line| !of_time.iter().any(|start| line.starts_with(start))).collect()
        };
        assert_eq!(stable(&mote), stable(&wasmtime));
        stable(&mote)
    };
    let plain = results(&[]);
    assert!(plain.contains("seedcrc          : 0xe9f5\n") && plain.contains("[0]crcfinal"), "{plain}");
    assert_eq!(results(&["--fuel", "1000000000"]), plain);

    let starved = coremark.with(&["50"]).run_mote(&["--fuel", "1000"]);
    assert_eq!(starved.status.code(), Some(134), "{starved:?}");
}

// --- Functions without WASI ------------------------------------------------------------------------------------------

/// The digests of `hash-wasm`, which is called function by function: one that calls them all is added to each module.
#[test]
fn hash_functions() {
    // Name, arguments of `Hash_Init` and of `Hash_Final`, 64-bit words of the digest (the last half word of 160 bits is
    // left out), and the host's program for it.
    let functions = [
        ("md5", "", "", 2, "md5sum"),
        ("sha1", "", "", 2, "sha1sum"),
        ("sha256", "(i32.const 256)", "", 4, "sha256sum"),
        ("sha512", "(i32.const 512)", "", 8, "sha512sum"),
        ("blake2b", "(i32.const 512)", "", 8, "b2sum"),
        ("ripemd160", "", "", 2, ""),
        ("sha3", "(i32.const 256)", "(i32.const 6)", 4, ""),
        ("sm3", "", "", 4, ""),
        ("whirlpool", "", "", 8, ""),
    ];
    for (name, first, last, words, host) in functions {
        let Some(module) = Program::fetched(&format!("hash-wasm/{name}.wasm")) else { return };
        let file = tempfile::Builder::new().suffix(".wat").tempfile().expect("no temporary file");
        fs::write(&file, with_digest(&module.module, first, last, words)).expect("cannot write a temporary file");
        let patched = Program { module: file.path().to_path_buf(), ..module };
        let numbers = patched.with(&[]).options(&["--invoke", "digest"]).returns();
        let digest: String = numbers
            .lines()
            .flat_map(|line| line.parse::<i64>().expect("no number").to_le_bytes())
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(digest.len(), words * 16, "{name}: {numbers}");
        if !host.is_empty() {
            let sum = Command::new(host).write_stdin(hashed_data()).timeout(LIMIT).output().expect("coreutils are missing");
            assert!(text(&sum.stdout).starts_with(&digest), "{name}: {digest}, {host}: {}", text(&sum.stdout));
        }
    }
}

const ROUNDS: usize = 20;
/// Below the size of the modules' buffer, and no multiple of a block.
const ROUND_BYTES: usize = 5_003;

/// What `digest` hashes.
fn hashed_data() -> Vec<u8> {
    (0..ROUNDS).flat_map(|round| (0..ROUND_BYTES).map(move |at| (at * 7 + round) as u8)).collect()
}

/// The module as text with a function more: it hashes [`hashed_data`] and returns the digest in words.
fn with_digest(module: &Path, first: &str, last: &str, words: usize) -> String {
    let text = wasmprinter::print_file(module).expect("cannot decode the module");
    // An added function comes last, so no index changes. Calls are by index: most modules have no names.
    let function = |export: &str| {
        let (_, rest) = text.split_once(&format!("(export \"{export}\" (func ")).expect("no such export");
        rest.split_once(')').expect("no end of an export").0
    };
    let [buffer, init, update, finish] = ["Hash_GetBuffer", "Hash_Init", "Hash_Update", "Hash_Final"].map(function);
    let word = |n: usize| format!("(i64.load offset={} (call {buffer}))\n", n * 8);
    let body = text.trim_end().strip_suffix(')').expect("no module");
    format!(
        "{body}
          (func (export \"digest\") (result {}) (local $round i32) (local $at i32)
            (call {init} {first})
            (loop $rounds
              (local.set $at (i32.const 0))
              (loop $bytes
                (i32.store8 (i32.add (call {buffer}) (local.get $at))
                  (i32.add (i32.mul (local.get $at) (i32.const 7)) (local.get $round)))
                (br_if $bytes (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 1))) (i32.const {ROUND_BYTES}))))
              (call {update} (i32.const {ROUND_BYTES}))
              (br_if $rounds (i32.lt_u (local.tee $round (i32.add (local.get $round) (i32.const 1))) (i32.const {ROUNDS}))))
            (call {finish} {last})
            {}))",
        "i64 ".repeat(words),
        (0..words).map(word).collect::<String>()
    )
}

// --- Payloads --------------------------------------------------------------------------------------------------------

#[test]
fn traps_of_payloads() {
    let names = "unreachable div-zero int-overflow oob call-null call-type table-oob recurse start-trap trap-after-print";
    for name in names.split(' ') {
        let Some(payload) = Program::payload(&format!("{name}.wat")) else { return };
        let output = payload.with(&[]).traps();
        assert_eq!(output, if name == "trap-after-print" { "printed before the trap\n" } else { "" }, "{name}");
    }
}

#[test]
fn results_of_payloads() {
    let exits = |name: &str, status, arguments: &[&str]| {
        Program::payload(name).map(|payload| payload.with(arguments).exits(status)).unwrap_or_default()
    };
    for name in ["hello.wat", "hello-c.wasm", "hello-rs.wasm", "lines.wat", "features.wat", "simd.wat", "grow-denied.wat"] {
        exits(name, 0, &[]);
    }
    exits("exit.wat", 42, &[]);
    exits("args.wat", 0, &["a", "b c", "", "--invoke", "ž"]);
    exits("grow-to.wat", 0, &["100"]);
    exits("grow-to.wat", 1, &["65537"]);
}

/// Both print and parse numbers on the command line by themselves.
#[test]
fn numbers_of_invoked_functions() {
    let Some(add) = Program::payload("add.wat") else { return };
    let invoke = |function, arguments: &[&str]| add.with(arguments).options(&["--invoke", function]).returns();
    for number in ["0.1", "1e308", "5e-324", "1e21", "1e-7", "-0.0", "inf", "-inf", "NaN", "123456789012345678", ".5"] {
        invoke("mulf", &[number, "1"]);
        invoke("mulf", &[number, "-9.7"]);
    }
    invoke("swap", &["9223372036854775807", "-9223372036854775808"]);
    assert_eq!(invoke("add", &["2147483647", "1"]), "-2147483648\n");
    assert_eq!(invoke("add", &["0x10", "-1"]), "15\n");
    assert_eq!(invoke("nop", &[]), "");
    for divisor in ["0", "-1"] {
        add.with(&["-2147483648", divisor]).options(&["--invoke", "div"]).traps();
    }
}
