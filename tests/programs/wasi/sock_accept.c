/* sock_accept: without and with a connection, again and again; what listeners and connections are as descriptors. */
#include "socket.h"

static void show(const char *label, int fd)
{
    __wasi_fdstat_t stat;
    __wasi_filestat_t file_stat;
    __wasi_prestat_t prestat;
    uint64_t at;
    int error = fd_fdstat_get(fd, &stat);
    tell(error, "%s, fd_fdstat_get", label);
    if (!error)
        note("%s: type %d, flags %d", label, stat.fs_filetype, stat.fs_flags);
    error = fd_filestat_get(fd, &file_stat);
    tell(error, "%s, fd_filestat_get", label);
    if (!error)
        note("%s: filestat type %d", label, file_stat.filetype);
    tell(fd_prestat_get(fd, &prestat), "%s, fd_prestat_get", label);
    tell(fd_seek(fd, 0, 0, &at), "%s, fd_seek", label);
    tell(fd_tell(fd, &at), "%s, fd_tell", label);
    tell(fd_filestat_set_size(fd, 0), "%s, fd_filestat_set_size", label);
    tell(open_at(fd, "x", CREAT, READ_WRITE, 0, &(int){0}), "%s, path_open", label);
}

int main(void)
{
    int fd = -1, ignored;
    __wasi_fdstat_t stat;
    need(fd_fdstat_get(LISTENER, &stat), "fd_fdstat_get");
    note("flags of the listener: %d", stat.fs_flags);
    tell(fd_fdstat_set_flags(LISTENER, NONBLOCK), "not to block");
    tell(sock_accept(LISTENER, 0, &fd), "without a connection");
    tell(sock_accept(LISTENER, NONBLOCK, &fd), "without a connection, without blocking");
    tell(sock_accept(NO_FD, 0, &fd), "number never opened");
    tell(sock_accept(0, 0, &fd), "standard input");
    show("listener", LISTENER);

    note("client: connect");
    tell(wait_for(LISTENER, __WASI_EVENTTYPE_FD_READ, &ignored), "poll_oneoff");
    tell(sock_accept(LISTENER, 0, &fd), "a connection");
    detail("a number of its own %d", fd > LISTENER);
    show("connection", fd);
    tell(sock_accept(LISTENER, 0, &(int){0}), "no more of them");
    tell(sock_accept(fd, 0, &(int){0}), "of a connection");

    int second = connected(NONBLOCK);
    need(fd_fdstat_get(second, &stat), "fd_fdstat_get");
    note("asked not to block: flags %d, another number %d", stat.fs_flags, second != fd);
    show_received("nothing there", second, 8, 0);
    tell(fd_fdstat_set_flags(second, 0), "to block again");
    need(fd_fdstat_get(second, &stat), "fd_fdstat_get");
    detail("flags %d", stat.fs_flags);
    tell(fd_close(second), "fd_close of a connection");
    tell(fd_close(second), "fd_close again");
    note("client: receive");

    tell(fd_close(LISTENER), "fd_close of the listener");
    tell(sock_accept(LISTENER, 0, &(int){0}), "of a closed listener");
    tell(fd_close(fd), "fd_close of the first connection");
}
