/* A fifo, as which the other types stand that are no files: opened, read, written and moved about in. tests/conformance.rs
 * holds it open at both ends, so that nothing waits. */
#include "check.h"

static void try_open(const char *label, int oflags, uint64_t rights, int fdflags)
{
    int fd = -1, error = path_open(ROOT, 0, "fifo", 4, oflags, rights, rights, fdflags, &fd);
    __wasi_fdstat_t stat;
    tell(error, "path_open %s", label);
    if (error)
        return;
    error = fd_fdstat_get(fd, &stat);
    tell(error, "fd_fdstat_get of the fifo %s", label);
    if (!error)
        detail("type %d, flags %d", stat.fs_filetype, stat.fs_flags);
    closed(fd);
}

int main(void)
{
    size_t count;
    uint64_t at;
    char buffer[16];
    __wasi_filestat_t stat;
    try_open("to read", 0, READ_ONLY, 0);
    try_open("to write", 0, WRITE_ONLY, 0);
    try_open("for both", 0, READ_WRITE, 0);
    try_open("to read without blocking", 0, READ_ONLY, NONBLOCK);
    try_open("as directory", DIRECTORY, READ_ONLY, 0);
    try_open("that may be new", CREAT, READ_WRITE, 0);
    try_open("that must be new", CREAT | EXCL, READ_WRITE, 0);
    try_open("to cut", TRUNC, READ_WRITE, 0);
    try_open("to append", 0, READ_WRITE, APPEND);

    int fd = -1;
    if (open_at(ROOT, "fifo", 0, READ_WRITE, 0, &fd))
        return 0;
    tell(fd_filestat_get(fd, &stat), "fd_filestat_get");
    detail("type %d, %llu links, %llu bytes", stat.filetype, (unsigned long long)stat.nlink, (unsigned long long)stat.size);
    int written = write_text(fd, "hello", &count);
    tell_number(written, count, "fd_write");
    if (!written) {
        tell_number(read_bytes(fd, buffer, 5, &count), count, "fd_read of what was written");
        detail("\"%s\"", quoted(buffer, count));
    }
    tell(pread_bytes(fd, buffer, 1, 0, &count), "fd_pread");
    tell(pwrite_text(fd, "x", 0, &count), "fd_pwrite");
    tell(fd_seek(fd, 0, 1, &at), "fd_seek");
    tell(fd_tell(fd, &at), "fd_tell");
    tell(fd_filestat_set_size(fd, 0), "fd_filestat_set_size");
    tell(fd_advise(fd, 0, 0, 0), "fd_advise");
    tell(fd_sync(fd), "fd_sync");
    tell(fd_datasync(fd), "fd_datasync");
    tell(fd_filestat_set_times(fd, 1, 1, 5), "fd_filestat_set_times");
    tell(fd_readdir(fd, buffer, sizeof buffer, 0, &count), "fd_readdir");
}
