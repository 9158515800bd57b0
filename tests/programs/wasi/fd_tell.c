/* fd_tell: the position after each kind of use, and any descriptor. */
#include "check.h"

static uint64_t at;

static int get(int fd)
{
    return fd_tell(fd, &at);
}

int main(void)
{
    size_t count;
    char buffer[4];
    int fd = opened("new", CREAT, READ_WRITE, 0), other = opened("new", 0, READ_WRITE, 0);
    tell_number(get(fd), at, "opened");
    need(write_text(fd, "hello", &count), "fd_write");
    tell_number(get(fd), at, "written");
    tell_number(get(other), at, "another descriptor");
    need(pwrite_text(fd, "hello", 10, &count), "fd_pwrite");
    tell_number(get(fd), at, "written elsewhere");
    need(fd_seek(fd, 1, 0, &at), "fd_seek");
    tell_number(get(fd), at, "moved");
    need(read_bytes(fd, buffer, 3, &count), "fd_read");
    tell_number(get(fd), at, "read");
    need(pread_bytes(fd, buffer, 3, 0, &count), "fd_pread");
    tell_number(get(fd), at, "read elsewhere");
    need(fd_filestat_set_size(fd, 0), "fd_filestat_set_size");
    tell_number(get(fd), at, "cut to nothing");
    need(fd_seek(fd, INT64_C(1) << 40, 0, &at), "fd_seek");
    tell_number(get(fd), at, "far away");
    int append = opened("file", 0, READ_WRITE, APPEND);
    tell_number(get(append), at, "append mode");
    need(write_text(append, "x", &count), "fd_write");
    tell_number(get(append), at, "appended");
    need(write_text(append, "y", &count), "fd_write");
    need(fd_filestat_set_size(append, 100), "fd_filestat_set_size");
    tell_number(get(append), at, "appended, then made longer");
    need(write_text(append, "y", &count), "fd_write");
    need(pwrite_text(append, "z", 0, &count), "fd_pwrite");
    tell_number(get(append), at, "appended, then written elsewhere");
    need(write_text(append, "y", &count), "fd_write");
    int shortening = opened("file", 0, READ_WRITE, 0);
    need(fd_filestat_set_size(shortening, 5), "fd_filestat_set_size");
    tell_number(get(append), at, "appended, then made shorter by another descriptor");
    int read_right = opened("file", 0, __WASI_RIGHTS_FD_READ, 0);
    tell(get(read_right), "with the right to read alone");
    try_descriptors("fd_tell of", get);
}
