//! Compiles one WebAssembly module ahead of time, in a process that can do nothing else.
//!
//! The VMM starts it for each module: a module is input from a stranger, and a compiler is a large program that reads it. So it
//! confines itself before the first byte, is bounded in memory and time, and ends with its parent. What it writes is no more
//! trusted than the module: it runs inside a VM, as the module would.

mod allocator;
mod compile;
mod confinement;
mod progress;
mod protocol;
mod request;
#[cfg(test)]
mod tests;

use std::{
    env,
    fs::File,
    io::{self, Write},
    mem::ManuallyDrop,
    os::{fd::FromRawFd, unix::fs::FileExt},
};

use wasmtime::Engine;

use compile::Failure;
use request::Request;

/// Of a thread that compiles: passes go deep into what a module nests.
const STACK_BYTES: usize = 16 << 20;

fn main() {
    let status = match run() {
        Ok(()) => protocol::COMPILED,
        Err(Failure { status, message }) => {
            let _nobody_reads_it = io::stderr().write_all(message.as_bytes());
            status
        }
    };
    // Nothing is left that would have to be tidied up, and the memory goes back at once.
    // SAFETY: it ends the process.
    unsafe { libc::_exit(status) }
}

fn run() -> Result<(), Failure> {
    let request = Request::parse(env::args().skip(1)).map_err(failed)?;
    // All that needs files, before there are none. Nothing of the module is read here.
    let engine = compile::engine(request.counts_fuel, &request.features).map_err(failed)?;
    let (module, module_bytes) = standard_input().map_err(failed)?;
    confine(&request)?;

    let artifact = compile_on_all_threads(&engine, &module, module_bytes, &request)?;
    let mut output = io::stdout();
    output.write_all(&artifact).and_then(|()| output.flush()).map_err(failed)
}

fn confine(request: &Request) -> Result<(), Failure> {
    let cannot = |what: &str, error: &dyn std::fmt::Display| failed(format!("cannot {what} the compiler: {error}"));
    confinement::limit(request).map_err(|error| cannot("limit", &error))?;
    // Where it is missing, seccomp has to do, and does.
    let _is_there = confinement::forbid_files().map_err(|error| cannot("confine by Landlock", &error))?;
    confinement::forbid_descriptors().map_err(|error| cannot("limit", &error))?;
    let threads = rayon::ThreadPoolBuilder::new().num_threads(request.threads).stack_size(STACK_BYTES);
    let threads = threads.start_handler(|_| progress::watch_thread()).build_global();
    // What they lack is room for their stacks.
    threads.map_err(|error| Failure { status: protocol::OUT_OF_MEMORY, message: error.to_string() })?;
    // A thread sets itself up by calls that are forbidden later.
    rayon::broadcast(|_| ());
    confinement::forbid_calls().map_err(failed)
}

/// On a thread of the pool, as this one may have a small stack.
fn compile_on_all_threads(engine: &Engine, module: &File, bytes: usize, request: &Request) -> Result<Vec<u8>, Failure> {
    rayon::scope(|_| {
        let mut contents = vec![0; bytes];
        module.read_exact_at(&mut contents, 0).map_err(|error| failed(format!("cannot read the module: {error}")))?;
        compile::compile(engine, contents, request)
    })
}

/// The file that is standard input, and its size. It is closed by nobody.
fn standard_input() -> io::Result<(ManuallyDrop<File>, usize)> {
    // SAFETY: it is open, or using it is an error; it is not closed.
    let file = ManuallyDrop::new(unsafe { File::from_raw_fd(libc::STDIN_FILENO) });
    let bytes = file.metadata()?.len();
    Ok((file, usize::try_from(bytes).map_err(io::Error::other)?))
}

fn failed(error: impl ToString) -> Failure {
    Failure { status: protocol::FAILED, message: error.to_string() }
}
