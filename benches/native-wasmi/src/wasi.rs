//! As much of WASI preview 1 as the benchmarks call; every other function answers `nosys`.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::AsFd,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use wasmi::{Caller, Error, Extern, ExternType, Func, Linker, Memory, Module, Store, Val, errors::LinkerError};

use crate::linear::Linear;

const MODULE: &str = "wasi_snapshot_preview1";

/// An error number (witx: `errno`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Errno(i32);

impl Errno {
    pub(crate) const FAULT: Self = Self(21);
    const BADF: Self = Self(8);
    const INVAL: Self = Self(28);
    const IO: Self = Self(29);
    const NOSYS: Self = Self(52);
    const SPIPE: Self = Self(70);
}

/// What a running module has of its host.
pub(crate) struct Wasi {
    /// The exported linear memory, once the module is instantiated.
    pub(crate) memory: Option<Memory>,
    /// Each with its NUL.
    arguments: Vec<Vec<u8>>,
    /// Standard input, output and error, without buffers.
    streams: [File; 3],
    random: File,
    started: Instant,
}

impl Wasi {
    pub(crate) fn new(arguments: Vec<String>) -> io::Result<Self> {
        let with_nul = |argument: String| argument.into_bytes().into_iter().chain([0]).collect();
        let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
        let own = |stream: std::os::fd::BorrowedFd<'_>| stream.try_clone_to_owned().map(File::from);
        Ok(Self {
            memory: None,
            arguments: arguments.into_iter().map(with_nul).collect(),
            streams: [own(stdin.as_fd())?, own(stdout.as_fd())?, own(stderr.as_fd())?],
            random: File::open("/dev/urandom")?,
            started: Instant::now(),
        })
    }

    fn stream(&mut self, fd: u32) -> Result<&mut File, Errno> {
        usize::try_from(fd).ok().and_then(|fd| self.streams.get_mut(fd)).ok_or(Errno::BADF)
    }
}

/// Defines what `module` imports of [`MODULE`].
pub(crate) fn link(linker: &mut Linker<Wasi>, store: &mut Store<Wasi>, module: &Module) -> Result<(), LinkerError> {
    for import in module.imports() {
        let ExternType::Func(wanted) = import.ty() else { continue };
        if import.module() != MODULE {
            continue;
        }
        let function = function(import.name(), store).unwrap_or_else(|| {
            Func::new(&mut *store, wanted.clone(), |_, _, results| {
                results.fill(Val::I32(Errno::NOSYS.0));
                Ok(())
            })
        });
        linker.define(MODULE, import.name(), function)?;
    }
    Ok(())
}

macro_rules! preview1 {
    ($($name:ident($($argument:ident: $type:ty),*) => $implementation:expr;)*) => {
        /// The function `name` of preview 1, if it is implemented.
        fn function(name: &str, store: &mut Store<Wasi>) -> Option<Func> {
            match name {
                $(stringify!($name) => Some(Func::wrap(store, |mut caller: Caller<'_, Wasi>, $($argument: $type),*| -> Result<i32, Error> {
                    let (mut memory, wasi) = view(&mut caller)?;
                    let result: Result<(), Errno> = ($implementation)(wasi, &mut memory, $($argument.cast_unsigned()),*);
                    Ok(result.map_or_else(|errno| errno.0, |()| 0))
                })),)*
                "proc_exit" => Some(Func::wrap(store, |_: Caller<'_, Wasi>, status: i32| -> Result<(), Error> {
                    Err(Error::i32_exit(status))
                })),
                _ => None,
            }
        }
    };
}

preview1! {
    args_get(pointers: i32, buffer: i32) => args_get;
    args_sizes_get(count: i32, bytes: i32) => args_sizes_get;
    environ_get(pointers: i32, buffer: i32) => |_: &mut Wasi, _: &mut Linear<'_>, _: u32, _: u32| Ok(());
    environ_sizes_get(count: i32, bytes: i32) => |_: &mut Wasi, memory: &mut Linear<'_>, count, bytes| {
        memory.write_u32(count, 0)?;
        memory.write_u32(bytes, 0)
    };
    random_get(buffer: i32, bytes: i32) => |wasi: &mut Wasi, memory: &mut Linear<'_>, buffer, bytes| {
        wasi.random.read_exact(memory.slice(buffer, bytes)?).map_err(|_| Errno::IO)
    };
    sched_yield() => |_: &mut Wasi, _: &mut Linear<'_>| Ok(());
    clock_res_get(id: i32, resolution: i32) => |_: &mut Wasi, memory: &mut Linear<'_>, _: u32, resolution| memory.write_u64(resolution, 1);
    clock_time_get(id: i32, precision: i64, time: i32) => clock_time_get;
    fd_read(fd: i32, vectors: i32, count: i32, done: i32) => fd_read;
    fd_write(fd: i32, vectors: i32, count: i32, done: i32) => fd_write;
    fd_close(fd: i32) => |wasi: &mut Wasi, _: &mut Linear<'_>, fd| wasi.stream(fd).map(drop);
    fd_seek(fd: i32, offset: i64, whence: i32, position: i32) => |wasi: &mut Wasi, _: &mut Linear<'_>, fd, _: u64, _: u32, _: u32| {
        wasi.stream(fd).and(Err(Errno::SPIPE))
    };
    fd_fdstat_get(fd: i32, stat: i32) => fd_fdstat_get;
    fd_filestat_get(fd: i32, stat: i32) => fd_filestat_get;
    fd_prestat_get(fd: i32, prestat: i32) => |_: &mut Wasi, _: &mut Linear<'_>, _: u32, _: u32| Err(Errno::BADF);
}

/// The module's memory and the state, side by side.
fn view<'a>(caller: &'a mut Caller<'_, Wasi>) -> Result<(Linear<'a>, &'a mut Wasi), Error> {
    // Start functions run before the instance is known outside.
    let exported = caller.data().memory.or_else(|| caller.get_export("memory").and_then(Extern::into_memory));
    let memory = exported.ok_or_else(|| Error::new("a module that calls WASI must export its memory as `memory`"))?;
    let (bytes, wasi) = memory.data_and_store_mut(&mut *caller);
    Ok((Linear(bytes), wasi))
}

fn args_sizes_get(wasi: &mut Wasi, memory: &mut Linear<'_>, count: u32, bytes: u32) -> Result<(), Errno> {
    let size = |size: usize| u32::try_from(size).map_err(|_| Errno::INVAL);
    memory.write_u32(count, size(wasi.arguments.len())?)?;
    memory.write_u32(bytes, size(wasi.arguments.iter().map(Vec::len).sum())?)
}

fn args_get(wasi: &mut Wasi, memory: &mut Linear<'_>, pointers: u32, buffer: u32) -> Result<(), Errno> {
    let (mut pointer, mut text) = (pointers, buffer);
    for argument in &wasi.arguments {
        memory.write_u32(pointer, text)?;
        memory.write(text, argument)?;
        let bytes = u32::try_from(argument.len()).map_err(|_| Errno::FAULT)?;
        pointer = pointer.checked_add(4).ok_or(Errno::FAULT)?;
        text = text.checked_add(bytes).ok_or(Errno::FAULT)?;
    }
    Ok(())
}

/// `realtime`, or one that only goes forward for all others (witx: `clockid`).
fn clock_time_get(wasi: &mut Wasi, memory: &mut Linear<'_>, id: u32, _precision: u64, time: u32) -> Result<(), Errno> {
    let now = match id {
        0 => SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| Errno::INVAL)?,
        _ => wasi.started.elapsed(),
    };
    memory.write_u64(time, u64::try_from(now.as_nanos()).map_err(|_| Errno::INVAL)?)
}

fn fd_read(wasi: &mut Wasi, memory: &mut Linear<'_>, fd: u32, vectors: u32, count: u32, done: u32) -> Result<(), Errno> {
    let stream = wasi.stream(fd)?;
    // As few as the first vector that takes some: a short read is a read.
    for index in 0..count {
        let buffer = memory.vector(vectors, index)?;
        if !buffer.is_empty() {
            let bytes = stream.read(buffer).map_err(|_| Errno::IO)?;
            return memory.write_u32(done, u32::try_from(bytes).map_err(|_| Errno::IO)?);
        }
    }
    memory.write_u32(done, 0)
}

fn fd_write(wasi: &mut Wasi, memory: &mut Linear<'_>, fd: u32, vectors: u32, count: u32, done: u32) -> Result<(), Errno> {
    let stream = wasi.stream(fd)?;
    let mut bytes = Vec::new();
    for index in 0..count {
        bytes.extend_from_slice(memory.vector(vectors, index)?);
    }
    stream.write_all(&bytes).map_err(|_| Errno::IO)?;
    memory.write_u32(done, u32::try_from(bytes.len()).map_err(|_| Errno::IO)?)
}

/// A character device with all rights but to seek and tell (witx: `fdstat`).
fn fd_fdstat_get(wasi: &mut Wasi, memory: &mut Linear<'_>, fd: u32, stat: u32) -> Result<(), Errno> {
    const CHARACTER_DEVICE: u64 = 2;
    const SEEK_AND_TELL: u64 = 1 << 2 | 1 << 5;
    wasi.stream(fd)?;
    let fields = [CHARACTER_DEVICE, !SEEK_AND_TELL, 0];
    memory.write(stat, fields.map(u64::to_le_bytes).as_flattened())
}

/// A character device, everything else zero (witx: `filestat`).
fn fd_filestat_get(wasi: &mut Wasi, memory: &mut Linear<'_>, fd: u32, stat: u32) -> Result<(), Errno> {
    const CHARACTER_DEVICE: u64 = 2;
    wasi.stream(fd)?;
    let fields = [0, 0, CHARACTER_DEVICE, 0, 0, 0, 0, 0];
    memory.write(stat, fields.map(u64::to_le_bytes).as_flattened())
}
