/* fd_fdstat_set_flags: every flag on a file, append mode that comes and goes, and any descriptor. */
#include "check.h"

static int none(int fd)
{
    return fd_fdstat_set_flags(fd, 0);
}

static int append(int fd)
{
    return fd_fdstat_set_flags(fd, APPEND);
}

static int flags_of(int fd)
{
    __wasi_fdstat_t stat;
    need(fd_fdstat_get(fd, &stat), "fd_fdstat_get");
    return stat.fs_flags;
}

int main(void)
{
    size_t written;
    uint64_t at;
    make_file("new", "text");
    int fd = opened("new", 0, READ_WRITE, 0), other = opened("new", 0, READ_WRITE, 0);

    for (int flags = 0; flags < 32; flags++) {
        tell(fd_fdstat_set_flags(fd, flags), "flags %d", flags);
        note("after flags %d: %d", flags, flags_of(fd));
    }
    need(fd_fdstat_set_flags(fd, 0), "fd_fdstat_set_flags");

    need(fd_fdstat_set_flags(fd, APPEND), "fd_fdstat_set_flags");
    note("append: %d, of another descriptor: %d", flags_of(fd), flags_of(other));
    tell_number(write_text(fd, "AB", &written), written, "fd_write in append mode");
    detail("position %llu", (unsigned long long)position(fd));
    tell_number(fd_seek(fd, 1, 0, &at), at, "fd_seek in append mode");
    tell_number(write_text(fd, "CD", &written), written, "fd_write after it");
    detail("position %llu", (unsigned long long)position(fd));
    need(fd_seek(fd, 1, 0, &at), "fd_seek");
    tell(fd_fdstat_set_flags(fd, 0), "append mode ends");
    tell_number(write_text(fd, "x", &written), written, "fd_write without it");
    detail("position %llu", (unsigned long long)position(fd));
    tell_number(write_text(other, "y", &written), written, "fd_write of the other descriptor");
    show_file("in the end", "new");

    int read_only = opened("file", 0, READ_ONLY, 0);
    tell(fd_fdstat_set_flags(read_only, APPEND), "append to a read-only file");
    tell(write_text(read_only, "x", &written), "fd_write after it");
    try_descriptors("no flags for", none);
    try_descriptors("append to", append);
}
