/* fd_close: what is closed is gone, nothing else is; preopened directories and standard streams can be closed too. */
#include "check.h"

int main(void)
{
    size_t count;
    uint64_t at;
    __wasi_fdstat_t stat;
    __wasi_prestat_t prestat;
    char buffer[8];

    int fd = opened("file", 0, READ_WRITE, 0), other = opened("file", 0, READ_ONLY, 0);
    tell(fd_close(fd), "file");
    tell(fd_close(fd), "file again");
    tell(fd_seek(fd, 0, 0, &at), "fd_seek of it");
    tell(read_bytes(fd, buffer, 1, &count), "fd_read of it");
    tell(read_bytes(fd, buffer, 0, &count), "fd_read of nothing from it");
    tell(fd_fdstat_get(fd, &stat), "fd_fdstat_get of it");
    tell_number(read_bytes(other, buffer, 5, &count), count, "another descriptor of the same file");
    tell(fd_close(other), "the other");

    int directory = opened("directory", DIRECTORY, READ_ONLY, 0), inside = -1;
    need(open_at(directory, "a", 0, READ_ONLY, 0, &inside), "directory/a");
    tell(fd_close(directory), "directory");
    tell(fd_close(directory), "directory again");
    tell(open_at(directory, "a", 0, READ_ONLY, 0, &fd), "path_open in it");
    tell_number(read_bytes(inside, buffer, 5, &count), count, "file opened in it");
    tell(fd_close(inside), "file opened in it");

    tell(fd_close(NO_FD), "number never opened");
    tell(fd_close(-1), "number -1");
    tell(fd_close(INT32_MIN), "number 2^31");

    /* Of an unlinked file nothing remains. */
    make_file("unlinked", "text");
    fd = opened("unlinked", 0, READ_WRITE, 0);
    need(path_unlink_file(ROOT, "unlinked", 8), "path_unlink_file");
    tell_number(read_bytes(fd, buffer, 8, &count), count, "fd_read of an unlinked file");
    tell(fd_close(fd), "unlinked file");

    for (int i = 0; i < 500; i++)
        closed(opened("file", 0, READ_ONLY, 0));
    detail("500 times opened and closed");

    tell(fd_close(0), "standard input");
    tell(read_bytes(0, buffer, 1, &count), "fd_read of it");
    tell(fd_close(2), "standard error");
    tell(fd_close(2), "standard error again");

    tell(fd_close(ROOT), "preopened directory");
    tell(fd_close(ROOT), "preopened directory again");
    tell(open_at(ROOT, "file", 0, READ_ONLY, 0, &fd), "path_open in it");
    tell(fd_prestat_get(ROOT, &prestat), "fd_prestat_get of it");
    tell(fd_prestat_dir_name(ROOT, buffer, sizeof buffer), "fd_prestat_dir_name of it");
}
