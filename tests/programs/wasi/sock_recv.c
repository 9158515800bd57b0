/* sock_recv: what came, at once or in parts, peeking, waiting for all, the end, and fd_read of the same. */
#include "socket.h"

int main(void)
{
    int fd = connected(0), flags;
    size_t count;
    uint16_t result_flags;
    char buffer[16];
    note("client: send hello, world");
    show_received("peeked", fd, 5, PEEK);
    show_received("the same", fd, 5, 0);
    show_received("the rest", fd, 64, 0);
    note("client: send abc");
    note("client: send defgh");
    show_received("all of it", fd, 8, WAITALL);
    note("client: send vectors");
    tell(wait_for(fd, __WASI_EVENTTYPE_FD_READ, &flags), "poll_oneoff");
    detail("flags %d", flags);
    tell(receive(fd, buffer, 0, 0, &count, &result_flags), "no bytes");
    tell(sock_recv(fd, NULL, 0, 0, &count, &result_flags), "no vectors");
    size_t total = 0;
    while (total < 7) {
        __wasi_iovec_t vectors[] = {{NULL, 0}, {(uint8_t *)buffer + total, 1}, {(uint8_t *)buffer + total + 1, 6 - total}};
        need(sock_recv(fd, vectors, 3, 0, &count, &result_flags), "sock_recv");
        total += count;
    }
    note("three vectors: \"%s\"", quoted(buffer, total));
    note("client: send by fd_read");
    total = 0;
    while (total < 10 && !read_bytes(fd, buffer + total, 10 - total, &count))
        total += count;
    note("fd_read: \"%s\"", quoted(buffer, total));
    tell(pread_bytes(fd, buffer, 8, 0, &count), "fd_pread");

    tell(fd_fdstat_set_flags(fd, NONBLOCK), "not to block");
    show_received("nothing there", fd, 8, 0);
    tell(read_bytes(fd, buffer, 8, &count), "fd_read of nothing there");
    tell(fd_fdstat_set_flags(fd, 0), "to block");
    tell(receive(LISTENER, buffer, 8, 0, &count, &result_flags), "of the listener");
    tell(receive(NO_FD, buffer, 8, 0, &count, &result_flags), "of a number never opened");

    note("client: send end");
    note("client: shut down");
    show_received("last bytes", fd, 3, WAITALL);
    tell(wait_for(fd, __WASI_EVENTTYPE_FD_READ, &flags), "poll_oneoff at the end");
    show_received("the end", fd, 8, 0);
    show_received("the end again", fd, 8, 0);
    show_received("the end, peeked", fd, 8, PEEK);
    tell_number(read_bytes(fd, buffer, 8, &count), count, "fd_read of the end");
    tell(send_text(fd, "still", &count), "sock_send to who has shut down");
    note("client: receive 5");
}
