/* fd_fdstat_set_rights: rights go, do not come back, and what they allowed is refused. */
#include "check.h"

/* All that a descriptor has but one; there is no other way to learn what can be kept. */
static int without(int fd, uint64_t right)
{
    __wasi_fdstat_t stat;
    need(fd_fdstat_get(fd, &stat), "fd_fdstat_get");
    return fd_fdstat_set_rights(fd, stat.fs_rights_base & ~right, stat.fs_rights_inheriting);
}

static int same(int fd)
{
    __wasi_fdstat_t stat;
    int error = fd_fdstat_get(fd, &stat);
    return fd_fdstat_set_rights(fd, error ? 0 : stat.fs_rights_base, error ? 0 : stat.fs_rights_inheriting);
}

int main(void)
{
    size_t count;
    char buffer[4];
    int fd = opened("file", 0, READ_WRITE, 0), opened_inside = -1;
    tell(same(fd), "the same rights");
    tell(without(fd, __WASI_RIGHTS_FD_WRITE), "without fd_write");
    tell(write_text(fd, "x", &count), "fd_write");
    tell(pwrite_text(fd, "x", 0, &count), "fd_pwrite");
    tell_number(read_bytes(fd, buffer, 4, &count), count, "fd_read");
    tell(fd_fdstat_set_rights(fd, READ_WRITE, 0), "with fd_write again");
    tell(write_text(fd, "x", &count), "fd_write after it");
    tell(without(fd, __WASI_RIGHTS_FD_READ), "without fd_read");
    tell(read_bytes(fd, buffer, 4, &count), "fd_read after it");
    tell(fd_fdstat_set_rights(fd, 0, 0), "none");

    int directory = opened("directory", DIRECTORY, READ_ONLY, 0);
    tell(without(directory, __WASI_RIGHTS_PATH_UNLINK_FILE), "directory without path_unlink_file");
    tell(path_unlink_file(directory, "a", 1), "path_unlink_file");
    tell(open_at(directory, "b", 0, READ_ONLY, 0, &opened_inside), "path_open");
    tell(fd_fdstat_set_rights(directory, 0, 0), "directory without any");
    tell(open_at(directory, "b", 0, READ_ONLY, 0, &opened_inside), "path_open after it");
    show_file("in the end", "file");
    try_descriptors("the same rights for", same);
}
