/* Pointers behind the memory, over its end and not aligned, in every function that takes some. Each case is a run of its
 * own where a runtime ends the program for it: argv[1] says which; without it, all of them. */
#include "cases.h"

int main(int argc, char **argv)
{
    if (argc > 1)
        wanted = atoi(argv[1]);
    int fd = opened("file", 0, READ_WRITE, 0), directory = opened("directory", DIRECTORY, READ_ONLY, 0), made;
    size_t size;
    uint64_t at;
    uint16_t flags;
    static char buffer[256];
    __wasi_filestat_t stat;
    __wasi_subscription_t subscription = {.u.tag = __WASI_EVENTTYPE_CLOCK};
    __wasi_event_t event;
    void *behind = (void *)UINTPTR_MAX, *over_end = (void *)(__builtin_wasm_memory_size(0) * 65536 - 2);
    __wasi_iovec_t good = {(uint8_t *)buffer, 4}, bad = {behind, 4}, long_one = {(uint8_t *)buffer, UINT32_MAX};
    __wasi_ciovec_t text = {(const uint8_t *)"text", 4}, bad_text = {behind, 4}, long_text = {(const uint8_t *)buffer, UINT32_MAX};

    CASE(fd_fdstat_get(fd, behind));
    CASE(fd_fdstat_get(fd, over_end));
    CASE(fd_filestat_get(fd, behind));
    CASE(fd_filestat_get(fd, over_end));
    CASE(fd_prestat_get(ROOT, behind));
    CASE(fd_prestat_dir_name(ROOT, behind, 1));
    CASE(fd_read(fd, behind, 1, &size));
    CASE(fd_read(fd, over_end, 1, &size));
    CASE(fd_read(fd, &good, UINT32_MAX, &size));
    CASE(fd_read(fd, &bad, 1, &size));
    CASE(fd_read(fd, &long_one, 1, &size));
    CASE(fd_read(fd, &good, 1, behind));
    CASE(fd_pread(fd, behind, 1, 0, &size));
    CASE(fd_pread(fd, &bad, 1, 0, &size));
    CASE(fd_pread(fd, &good, 1, 0, behind));
    CASE(fd_write(fd, behind, 1, &size));
    CASE(fd_write(fd, over_end, 1, &size));
    CASE(fd_write(fd, &bad_text, 1, &size));
    CASE(fd_write(fd, &long_text, 1, &size));
    CASE(fd_write(fd, &text, 1, behind));
    CASE(fd_pwrite(fd, behind, 1, 0, &size));
    CASE(fd_pwrite(fd, &bad_text, 1, 0, &size));
    CASE(fd_pwrite(fd, &text, 1, 0, behind));
    CASE(fd_readdir(directory, behind, 100, 0, &size));
    CASE(fd_readdir(directory, over_end, 100, 0, &size));
    CASE(fd_readdir(directory, buffer, sizeof buffer, 0, behind));
    CASE(fd_seek(fd, 0, 0, behind));
    CASE(fd_tell(fd, behind));
    CASE(path_create_directory(ROOT, behind, 4));
    CASE(path_create_directory(ROOT, over_end, 4));
    CASE(path_filestat_get(ROOT, 0, behind, 4, &stat));
    CASE(path_filestat_get(ROOT, 0, "file", 4, behind));
    CASE(path_filestat_get(ROOT, 0, "file", UINT32_MAX, &stat));
    CASE(path_filestat_set_times(ROOT, 0, behind, 4, 0, 0, 1));
    CASE(path_link(ROOT, 0, behind, 4, ROOT, "new", 3));
    CASE(path_link(ROOT, 0, "file", 4, ROOT, behind, 3));
    CASE(path_open(ROOT, 0, behind, 4, CREAT, READ_ONLY, READ_ONLY, 0, &made));
    CASE(path_open(ROOT, 0, "file", UINT32_MAX, 0, READ_ONLY, READ_ONLY, 0, &made));
    CASE(path_open(ROOT, 0, "file", 4, 0, READ_ONLY, READ_ONLY, 0, behind));
    CASE(path_open(ROOT, 0, "new", 3, CREAT, READ_ONLY, READ_ONLY, 0, behind));
    CASE(path_open(ROOT, 0, "file", 4, TRUNC, READ_WRITE, READ_WRITE, 0, behind));
    CASE(path_readlink(ROOT, behind, 4, buffer, sizeof buffer, &size));
    CASE(path_readlink(ROOT, "link", 4, behind, 4, &size));
    CASE(path_readlink(ROOT, "link", 4, over_end, 4, &size));
    CASE(path_readlink(ROOT, "link", 4, buffer, sizeof buffer, behind));
    CASE(path_remove_directory(ROOT, behind, 4));
    CASE(path_rename(ROOT, behind, 4, ROOT, "new", 3));
    CASE(path_rename(ROOT, "file", 4, ROOT, behind, 3));
    CASE(path_symlink(behind, 4, ROOT, "new", 3));
    CASE(path_symlink("file", 4, ROOT, behind, 3));
    CASE(path_unlink_file(ROOT, behind, 4));
    CASE(poll_oneoff(behind, &event, 1, &size));
    CASE(poll_oneoff(&subscription, behind, 1, &size));
    CASE(poll_oneoff(&subscription, &event, UINT32_MAX, &size));
    CASE(sock_recv(NO_FD, behind, 1, 0, &size, &flags));
    CASE(fd_filestat_get(fd, (void *)(buffer + 1)));
    CASE(fd_read(fd, (void *)(buffer + 1), 1, &size));
    CASE(path_open(ROOT, 0, "file", 4, 0, READ_ONLY, READ_ONLY, 0, (void *)(buffer + 1)));
    /* Where nothing is read or written, pointers do not matter. */
    CASE(fd_read(fd, behind, 0, &size));
    CASE(fd_prestat_dir_name(NO_FD, behind, 1));
    CASE(path_unlink_file(NO_FD, behind, 4));
    CASE(fd_tell(NO_FD, &at));
    CASE(fd_tell(NO_FD, behind));
    if (wanted < 0 || wanted >= count)
        note("cases: %d", count);
}
