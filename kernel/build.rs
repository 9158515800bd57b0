//! Passes the linker script and what keeps libc out to the linker.

fn main() {
    let linker_script = format!("{}/../linker/kernel.ld", env!("CARGO_MANIFEST_DIR"));
    println!("cargo:rerun-if-changed={linker_script}");
    let script = format!("-Wl,-T,{linker_script}");
    let arguments = [
        "-nostdlib",
        "-nostartfiles",
        "-static",
        "-no-pie",
        script.as_str(),
        "-Wl,--build-id=none",
        "-Wl,-z,noexecstack",
        "-Wl,-z,norelro",
        "-Wl,--no-undefined",
    ];
    for argument in arguments {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}
