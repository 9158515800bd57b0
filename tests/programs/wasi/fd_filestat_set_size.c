/* fd_filestat_set_size: shorter, longer, impossible; positions stay, new bytes are zeros. */
#include "check.h"

static int seven(int fd)
{
    return fd_filestat_set_size(fd, 7);
}

int main(void)
{
    size_t count;
    uint64_t at;
    char buffer[16];
    make_file("new", "hello, world");
    int fd = opened("new", 0, READ_WRITE, 0), other = opened("new", 0, READ_ONLY, 0);
    need(fd_seek(fd, 9, 0, &at), "fd_seek");
    tell(fd_filestat_set_size(fd, 5), "shorter");
    show_file("shorter", "new");
    detail("position %llu", (unsigned long long)position(fd));
    tell_number(read_bytes(fd, buffer, 16, &count), count, "fd_read behind the end");
    tell(fd_filestat_set_size(fd, 12), "longer");
    show_file("longer", "new");
    tell_number(read_bytes(fd, buffer, 16, &count), count, "fd_read of new bytes");
    detail("they are \"%s\", position %llu", quoted(buffer, count), (unsigned long long)position(fd));
    detail("size by another descriptor %llu", (unsigned long long)size_of(other));
    tell(fd_filestat_set_size(fd, 12), "the same");
    tell(fd_filestat_set_size(fd, 0), "nothing");
    show_file("nothing", "new");
    tell_number(write_text(fd, "x", &count), count, "fd_write behind the end");
    show_file("with a hole", "new");
    tell(fd_filestat_set_size(fd, 1 << 20), "1 MiB");
    detail("size %llu", (unsigned long long)size_of(fd));
    tell(fd_filestat_set_size(fd, 3), "three bytes");
    tell(fd_filestat_set_size(fd, UINT64_C(1) << 63), "2^63");
    tell(fd_filestat_set_size(fd, UINT64_MAX), "2^64-1");
    show_file("after the impossible", "new");

    int append = opened("new", 0, READ_WRITE, APPEND);
    tell(fd_filestat_set_size(append, 2), "in append mode");
    tell_number(write_text(append, "yz", &count), count, "fd_write in append mode");
    show_file("in append mode", "new");
    int reader = opened("new", 0, READ_ONLY, APPEND);
    tell(fd_filestat_set_size(reader, 1), "in append mode, without the right to write");
    reader = opened("made", CREAT, READ_ONLY, 0);
    tell(fd_filestat_set_size(reader, 1), "who made it, without the right to write");
    need(path_unlink_file(ROOT, "new", 3), "path_unlink_file");
    tell(fd_filestat_set_size(fd, 100), "unlinked file");
    detail("size %llu", (unsigned long long)size_of(append));
    tell(fd_filestat_set_size(NO_FD, UINT64_MAX), "wrong descriptor and size");
    try_descriptors("seven bytes of", seven);
    show_file("kinds", "kinds");
}
