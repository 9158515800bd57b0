//! QuickJS with a script file, a renderer of pictures and a synthesizer of circuits.

use std::fs;

use super::both::{Case, fetched, fixture, programs, skip};
use crate::support::engine::{self, Engine};

#[test]
fn quickjs() {
    let Some(quickjs) = fetched("quickjs.wasm") else { return };
    let both = Case::new(quickjs).files(fixture("quickjs")).arguments(&["/w/main.js", "a", "b"]).exits(3);
    assert!(both.text().starts_with("303 1318 true\n"), "{}", both.text());
}

#[test]
fn resvg() {
    let Some(resvg) = fetched("resvg.wasm") else { return };
    let both =
        Case::new(resvg).files(fixture("resvg")).arguments(&["--width", "640", "/w/drawing.svg", "/w/drawing.png"]).exits(0);
    let picture = fs::read(both.mote.path("drawing.png")).expect("it is there");
    assert!(picture.starts_with(b"\x89PNG\r\n") && picture.len() > 10_000, "{} bytes", picture.len());
}

#[test]
fn yosys_tells_its_version() {
    let Some(yosys) = fetched("yosys.wasm") else { return };
    assert!(Case::new(yosys).arguments(&["-V"]).exits(0).text().starts_with("Yosys 0.55 "));
}

#[test]
fn yosys_synthesizes_a_counter() {
    let Some(yosys) = fetched("yosys.wasm") else { return };
    synthesize_a_counter(Case::new(yosys), "yosys-share");
}

/// It throws exceptions, which the interpreter does not have.
#[test]
fn yosys_with_exceptions() {
    if engine::under_test() == Engine::Interp {
        skip("yosys-new.wasm: the interpreter has no exceptions");
        return;
    }
    let Some(yosys) = fetched("yosys-new.wasm") else { return };
    let yosys = || Case::new(&yosys).compiled_thoroughly();
    assert!(yosys().arguments(&["-V"]).exits(0).text().starts_with("Yosys 0.70 "));
    yosys().arguments(&["-q", "-p", "read_verilog /no/such/file.v"]).exits(1);
    synthesize_a_counter(yosys(), "yosys-new-share");
}

fn synthesize_a_counter(yosys: Case, share: &str) {
    // Yosys passes the circuit to its optimizer in temporary files.
    let temporary = tempfile::tempdir().expect("no temporary directory");
    let script =
        "read_verilog /w/counter.v; synth -top counter; write_verilog /w/out.v; write_json /w/out.json; tee -o /w/stat stat";
    let case = yosys.directory(&programs().join(share), "/share").directory(temporary.path(), "/tmp");
    let both = case.files(fixture("yosys")).arguments(&["-q", "-p", script]).exits(0);
    let netlist = fs::read_to_string(both.mote.path("out.v")).expect("it is there");
    assert!(netlist.contains("module counter(clk, reset, enable, count);"), "{netlist}");
}
