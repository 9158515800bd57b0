/* sock_send: short, long and in vectors, fd_write of the same, and to who is no more. */
#include "socket.h"

int main(void)
{
    int fd = connected(0), flags;
    size_t count;
    tell(wait_for(fd, __WASI_EVENTTYPE_FD_WRITE, &flags), "poll_oneoff");
    tell_number(send_text(fd, "hello", &count), count, "five bytes");
    note("client: receive 5");
    tell_number(send_text(fd, "", &count), count, "no bytes");
    tell_number(sock_send(fd, NULL, 0, 0, &count), count, "no vectors");
    tell_number(sock_send(fd, NULL, 0, 1, &count), count, "no vectors, with a flag");
    __wasi_ciovec_t vectors[] = {{NULL, 0}, {(const uint8_t *)"three ", 6}, {(const uint8_t *)"vectors", 7}};
    for (size_t i = 0; i < 3; i++) {
        need(sock_send(fd, vectors + i, 3 - i, 0, &count), "sock_send");
        for (; i < 2 && count > vectors[i].buf_len; i++)
            count -= vectors[i].buf_len;
    }
    note("client: receive 13");
    tell_number(write_text(fd, "fd_write", &count), count, "fd_write");
    note("client: receive 8");
    tell(pwrite_text(fd, "x", 0, &count), "fd_pwrite");

    static uint8_t large[300000];
    memset(large, 'x', sizeof large);
    int error = 0;
    note("client: receive 300000");
    for (size_t sent = 0; sent < sizeof large && !error; sent += count) {
        __wasi_ciovec_t vector = {large + sent, sizeof large - sent};
        error = sock_send(fd, &vector, 1, 0, &count);
        if (error == __WASI_ERRNO_AGAIN)
            error = wait_for(fd, __WASI_EVENTTYPE_FD_WRITE, &flags), count = 0;
    }
    tell(error, "300000 bytes");
    tell(send_text(LISTENER, "x", &count), "to the listener");
    tell(send_text(NO_FD, "x", &count), "to a number never opened");

    note("client: close");
    show_received("what a closed one sent", fd, 8, 0);
    for (int i = 0; i < 100 && !error; i++)
        error = send_text(fd, "x", &count);
    tell(error, "to who is no more");
    tell(write_text(fd, "x", &count), "fd_write to who is no more");
}
