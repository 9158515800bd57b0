//! WASI preview 1 (witx: `wasi_snapshot_preview1`), answered in the guest.
//!
//! This file is the table of all 46 functions with their types; the others implement them.

mod attributes;
mod clocks;
mod descriptor;
mod descriptors;
mod directory;
mod errno;
mod files;
mod host_file;
mod last_call;
mod linear;
mod paths;
mod poll;
mod process;
mod ram;
mod sockets;
mod stdin;
mod streams;

use alloc::{string::String, vec::Vec};

use mote_abi::{errno::Errno, file::fdflags};
use mote_kernel_logic::fd::FdTable;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};

use crate::{
    engine::{
        Limiter,
        backend::{self, Caller, Error, Extern, Func, Memory, Store},
    },
    guest::{self, BootInfo},
};
use descriptor::{Descriptor, Directory, Object, Place};
use last_call::LastCall;
use linear::Linear;
use ram::Disk;
use stdin::Stdin;

/// The module name under which preview 1 is imported.
pub(crate) const MODULE: &str = "wasi_snapshot_preview1";

/// What a running module has of its host.
pub(crate) struct Wasi {
    pub(crate) limiter: Limiter,
    /// The exported linear memory, once the module is instantiated; none where there are several instances.
    pub(crate) memory: Option<Memory>,
    pub(crate) last_call: LastCall,
    boot: BootInfo,
    fds: FdTable<Descriptor>,
    files: host_file::Shared,
    ram: Option<Disk>,
    random: ChaCha20Rng,
    /// Which renewal of the seed the generator is of.
    seed_generation: u64,
    /// Values of the host to which modules have references.
    #[cfg(not(feature = "compiled"))]
    pub(crate) references: backend::References,
    stdin: Stdin,
}

impl Wasi {
    /// The state in which a module starts; what is wrong with its ramdisk otherwise.
    pub(crate) fn new(boot: BootInfo) -> Result<Self, String> {
        let (seed, seed_generation) = boot.random_seed();
        let mut wasi = Self {
            limiter: Limiter::new(boot),
            memory: None,
            last_call: LastCall::default(),
            boot,
            fds: FdTable::default(),
            files: host_file::Shared::default(),
            ram: boot.ramdisk().map(ram::load).transpose()?,
            random: ChaCha20Rng::from_seed(seed),
            seed_generation,
            #[cfg(not(feature = "compiled"))]
            references: backend::References::default(),
            stdin: Stdin::default(),
        };
        let streams = [(Object::Stdin, 0), (Object::Stdout, fdflags::APPEND), (Object::Stderr, fdflags::APPEND)];
        // Event loops take a listener that blocks for one that they must not wait for with others.
        let listeners = (0..boot.listeners()).map(|handle| (Object::Listener { handle }, fdflags::NONBLOCK));
        let host = (boot.listeners()..).zip(boot.directories().iter()).map(|(handle, name)| (Place::Host(handle), name));
        let ram = wasi.ram.is_some().then_some((Place::Ram(ram::ROOT), &b"/"[..]));
        let directories =
            host.chain(ram).map(|(place, name)| (Object::Directory(Directory { place, preopened: Some(name), inode: None }), 0));
        for (object, flags) in streams.into_iter().chain(listeners).chain(directories) {
            let added = wasi.fds.insert(Descriptor::new(object, flags));
            added.map_err(|_| String::from("it is given more directories and sockets than there are descriptors"))?;
        }
        Ok(wasi)
    }

    /// The descriptor `fd`, if all of `rights` are left to it that it could have.
    fn descriptor(&mut self, fd: u32, rights: u64) -> Result<&mut Descriptor, Errno> {
        let descriptor = self.fds.get_mut(fd)?;
        let given_up = Descriptor::rights_of(&descriptor.object).0 & !descriptor.rights;
        if given_up & rights == 0 { Ok(descriptor) } else { Err(Errno::Notcapable) }
    }
}

/// Makes [`function`] out of lines `name(arguments) => implementation`. An implementation gets the state, the linear
/// memory and the arguments, and its error becomes the errno that the module sees.
macro_rules! preview1 {
    ($($name:ident($($argument:ident: $type:ty),*) => $implementation:expr;)*) => {
        /// The function `name` of preview 1, `None` if there is none.
        pub(crate) fn function(name: &str, store: &mut Store<Wasi>) -> Option<Func> {
            match name {
                $(stringify!($name) => Some(Func::wrap(store, |mut caller: Caller<'_, Wasi>, $($argument: $type),*| -> Result<i32, Error> {
                    caller.data_mut().last_call.record(stringify!($name), &[$(Argument::from($argument).0),*]);
                    let (mut memory, wasi) = view(&mut caller)?;
                    let result: Result<(), Errno> = ($implementation)(wasi, &mut memory, $(<$type as Unsigned>::unsigned($argument)),*);
                    Ok(errno::to_code(result))
                })),)*
                "proc_exit" => Some(Func::wrap(store, |mut caller: Caller<'_, Wasi>, status: i32| -> Result<(), Error> {
                    caller.data_mut().last_call.record("proc_exit", &[i64::from(status)]);
                    Err(backend::exit(status))
                })),
                _ => None,
            }
        }
    };
}

preview1! {
    args_get(argv: i32, buffer: i32) => process::args_get;
    args_sizes_get(count: i32, bytes: i32) => process::args_sizes_get;
    environ_get(environ: i32, buffer: i32) => process::environ_get;
    environ_sizes_get(count: i32, bytes: i32) => process::environ_sizes_get;
    random_get(buffer: i32, bytes: i32) => process::random_get;
    proc_raise(signal: i32) => |_, _, _| Err(Errno::Notsup);
    sched_yield() => |_, _| Ok(());

    clock_res_get(id: i32, resolution: i32) => clocks::res_get;
    clock_time_get(id: i32, precision: i64, time: i32) => clocks::time_get;
    poll_oneoff(subscriptions: i32, events: i32, count: i32, happened: i32) => poll::oneoff;

    fd_read(fd: i32, iovs: i32, count: i32, done: i32) => files::read;
    fd_write(fd: i32, iovs: i32, count: i32, done: i32) => files::write;
    fd_close(fd: i32) => files::close;
    fd_renumber(from: i32, to: i32) => files::renumber;
    fd_fdstat_get(fd: i32, stat: i32) => descriptors::fdstat_get;
    fd_fdstat_set_flags(fd: i32, flags: i32) => descriptors::fdstat_set_flags;
    fd_fdstat_set_rights(fd: i32, base: i64, inheriting: i64) => descriptors::fdstat_set_rights;
    fd_filestat_get(fd: i32, stat: i32) => attributes::filestat_get;
    fd_seek(fd: i32, offset: i64, whence: i32, position: i32) => files::seek;
    fd_tell(fd: i32, position: i32) => files::tell;
    fd_pread(fd: i32, iovs: i32, count: i32, offset: i64, done: i32) => files::pread;
    fd_pwrite(fd: i32, iovs: i32, count: i32, offset: i64, done: i32) => files::pwrite;
    fd_advise(fd: i32, offset: i64, length: i64, advice: i32) => attributes::advise;
    fd_allocate(fd: i32, offset: i64, length: i64) => attributes::allocate;
    fd_datasync(fd: i32) => attributes::datasync;
    fd_sync(fd: i32) => attributes::sync;
    fd_filestat_set_size(fd: i32, bytes: i64) => attributes::filestat_set_size;
    fd_filestat_set_times(fd: i32, accessed: i64, modified: i64, flags: i32) => attributes::filestat_set_times;
    fd_prestat_get(fd: i32, prestat: i32) => descriptors::prestat_get;
    fd_prestat_dir_name(fd: i32, path: i32, bytes: i32) => descriptors::prestat_dir_name;
    fd_readdir(fd: i32, buffer: i32, bytes: i32, cookie: i64, used: i32) => directory::readdir;

    path_create_directory(fd: i32, path: i32, bytes: i32) => paths::create_directory;
    path_filestat_get(fd: i32, flags: i32, path: i32, bytes: i32, stat: i32) => paths::filestat_get;
    path_filestat_set_times(fd: i32, flags: i32, path: i32, bytes: i32, accessed: i64, modified: i64, which: i32) => paths::filestat_set_times;
    path_link(from_fd: i32, flags: i32, from: i32, from_bytes: i32, to_fd: i32, to: i32, to_bytes: i32) => paths::link;
    path_open(fd: i32, dirflags: i32, path: i32, bytes: i32, oflags: i32, base: i64, inheriting: i64, flags: i32, opened: i32) => paths::open;
    path_readlink(fd: i32, path: i32, path_bytes: i32, buffer: i32, bytes: i32, used: i32) => paths::readlink;
    path_remove_directory(fd: i32, path: i32, bytes: i32) => paths::remove_directory;
    path_rename(from_fd: i32, from: i32, from_bytes: i32, to_fd: i32, to: i32, to_bytes: i32) => paths::rename;
    path_symlink(target: i32, target_bytes: i32, fd: i32, path: i32, bytes: i32) => paths::symlink;
    path_unlink_file(fd: i32, path: i32, bytes: i32) => paths::unlink_file;

    sock_accept(fd: i32, flags: i32, accepted: i32) => sockets::accept;
    sock_recv(fd: i32, iovs: i32, count: i32, flags: i32, done: i32, out_flags: i32) => sockets::recv;
    sock_send(fd: i32, iovs: i32, count: i32, flags: i32, done: i32) => sockets::send;
    sock_shutdown(fd: i32, how: i32) => sockets::shutdown;
}

/// An empty vector with room for `count` elements, a number that the module chose: `nomem` if that is a large part of what
/// RAM is left.
fn room_for<T>(count: u32) -> Result<Vec<T>, Errno> {
    const ALWAYS_BYTES: u64 = 64 << 10;
    let bytes = u64::from(count).saturating_mul(size_of::<T>() as u64);
    let mut vector = Vec::new();
    let reserved = bytes <= ALWAYS_BYTES.max(guest::free_ram_bytes() / 4) && vector.try_reserve_exact(count as usize).is_ok();
    if reserved { Ok(vector) } else { Err(Errno::Nomem) }
}

/// The module's memory and the state, side by side.
fn view<'a>(caller: &'a mut Caller<'_, Wasi>) -> Result<(Linear<'a>, &'a mut Wasi), Error> {
    // Start functions run before the instance is known outside.
    let exported = caller.data().memory.or_else(|| caller.get_export("memory").and_then(Extern::into_memory));
    let memory = exported.ok_or_else(|| backend::error("a module that calls WASI must export its memory as `memory`"))?;
    let (bytes, wasi) = memory.data_and_store_mut(&mut *caller);
    Ok((Linear::new(bytes), wasi))
}

/// An argument of any width as the record of calls keeps it.
struct Argument(i64);

impl From<i32> for Argument {
    fn from(value: i32) -> Self {
        Self(i64::from(value))
    }
}

impl From<i64> for Argument {
    fn from(value: i64) -> Self {
        Self(value)
    }
}

/// WebAssembly's integers have no sign; WASI's have none either but for seek offsets.
trait Unsigned {
    type Unsigned;
    fn unsigned(self) -> Self::Unsigned;
}

impl Unsigned for i32 {
    type Unsigned = u32;
    fn unsigned(self) -> u32 {
        self.cast_unsigned()
    }
}

impl Unsigned for i64 {
    type Unsigned = u64;
    fn unsigned(self) -> u64 {
        self.cast_unsigned()
    }
}
