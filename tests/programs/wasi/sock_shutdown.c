/* sock_shutdown: either direction, both and neither, more than once, and of what is no connection. */
#include "socket.h"

int main(void)
{
    int fd = connected(0);
    size_t count;
    char buffer[8];
    note("client: send before");
    show_received("before", fd, 6, WAITALL);
    tell(sock_shutdown(fd, 0), "neither direction");
    tell(sock_shutdown(fd, WR), "sending");
    note("client: receive");
    tell(send_text(fd, "x", &count), "sock_send after it");
    tell(write_text(fd, "x", &count), "fd_write after it");
    note("client: send other direction");
    show_received("sock_recv after it", fd, 15, WAITALL);
    tell(sock_shutdown(fd, WR), "sending again");
    tell(sock_shutdown(fd, RD), "receiving");
    show_received("sock_recv after that", fd, 8, 0);
    tell_number(read_bytes(fd, buffer, 8, &count), count, "fd_read after that");
    tell(sock_shutdown(fd, RD | WR), "both directions");

    int second = connected(0);
    tell(sock_shutdown(second, RD | WR), "both directions at once");
    note("client: receive");
    show_received("sock_recv after both", second, 8, 0);
    tell(send_text(second, "x", &count), "sock_send after both");
    tell(fd_close(second), "fd_close");
    tell(sock_shutdown(second, RD), "of a closed descriptor");
    tell(sock_shutdown(NO_FD, RD), "of a number never opened");
    tell(sock_shutdown(0, RD), "of standard input");
    tell(sock_shutdown(LISTENER, RD | WR), "of the listener");
}
