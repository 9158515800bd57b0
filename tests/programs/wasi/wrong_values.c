/* Flags that there are not and numbers that stand for nothing, in every function that takes some. Each case is a run of its
 * own where a runtime ends the program for it: argv[1] says which; without it, all of them. */
#include "cases.h"

int main(int argc, char **argv)
{
    if (argc > 1)
        wanted = atoi(argv[1]);
    int fd = opened("file", 0, READ_WRITE, 0), made;
    size_t size;
    uint64_t at;
    uint16_t flags;
    __wasi_filestat_t stat;
    __wasi_event_t event;
    __wasi_subscription_t clock = {.u.tag = __WASI_EVENTTYPE_CLOCK, .u.u.clock.id = 9};
    __wasi_subscription_t flag = {.u.tag = __WASI_EVENTTYPE_CLOCK, .u.u.clock.id = 1, .u.u.clock.flags = 2};
    __wasi_subscription_t type = {.u.tag = 3}, large_type = {.u.tag = 255};

    CASE(fd_advise(fd, 0, 0, 6));
    CASE(fd_advise(fd, 0, 0, 255));
    CASE(fd_advise(fd, 0, 0, 256));
    CASE(fd_advise(fd, 0, 0, -1));
    CASE(fd_fdstat_set_flags(fd, 32));
    CASE(fd_fdstat_set_flags(fd, 32768));
    CASE(fd_fdstat_set_flags(fd, 65536));
    CASE(fd_fdstat_set_flags(fd, -1));
    CASE(fd_fdstat_set_rights(fd, UINT64_C(1) << 30, 0));
    CASE(fd_fdstat_set_rights(fd, 0, UINT64_C(1) << 63));
    CASE(fd_filestat_set_times(fd, 0, 0, 16));
    CASE(fd_filestat_set_times(fd, 0, 0, 65536));
    CASE(fd_filestat_set_times(fd, 0, 0, -1));
    CASE(fd_seek(fd, 1, 3, &at));
    CASE(fd_seek(fd, 1, 255, &at));
    CASE(fd_seek(fd, 1, 256, &at));
    CASE(fd_seek(fd, 1, -1, &at));
    CASE(path_filestat_get(ROOT, 2, "file", 4, &stat));
    CASE(path_filestat_get(ROOT, -1, "file", 4, &stat));
    CASE(path_filestat_set_times(ROOT, 2, "file", 4, 0, 0, 1));
    CASE(path_filestat_set_times(ROOT, 0, "file", 4, 0, 0, 16));
    CASE(path_link(ROOT, 2, "file", 4, ROOT, "new", 3));
    CASE(path_link(ROOT, 3, "file", 4, ROOT, "new", 3));
    CASE(path_open(ROOT, 2, "file", 4, 0, READ_ONLY, READ_ONLY, 0, &made));
    CASE(path_open(ROOT, -1, "file", 4, 0, READ_ONLY, READ_ONLY, 0, &made));
    CASE(path_open(ROOT, 0, "new", 3, CREAT | 16, READ_ONLY, READ_ONLY, 0, &made));
    CASE(path_open(ROOT, 0, "new", 3, CREAT | 32768, READ_ONLY, READ_ONLY, 0, &made));
    CASE(path_open(ROOT, 0, "new", 3, CREAT | 65536, READ_ONLY, READ_ONLY, 0, &made));
    CASE(path_open(ROOT, 0, "new", 3, CREAT, READ_ONLY, READ_ONLY, 32, &made));
    CASE(path_open(ROOT, 0, "new", 3, CREAT, READ_ONLY, READ_ONLY, 65536, &made));
    CASE(path_open(ROOT, 0, "file", 4, 0, UINT64_C(1) << 30, 0, 0, &made));
    CASE(path_open(ROOT, 0, "file", 4, 0, 0, UINT64_C(1) << 63, 0, &made));
    CASE(poll_oneoff(&clock, &event, 1, &size));
    CASE(poll_oneoff(&flag, &event, 1, &size));
    CASE(poll_oneoff(&type, &event, 1, &size));
    CASE(poll_oneoff(&large_type, &event, 1, &size));
    CASE(sock_accept(fd, 32, &made));
    CASE(sock_recv(fd, NULL, 0, 4, &size, &flags));
    CASE(sock_send(fd, NULL, 0, 1, &size));
    CASE(sock_shutdown(fd, 4));
    if (wanted < 0 || wanted >= count)
        note("cases: %d", count);
}
