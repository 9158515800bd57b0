/* sock_accept, sock_recv, sock_send and sock_shutdown on what is no socket. */
#include "check.h"

static char buffer[8];

static int accept_from(int fd)
{
    int result;
    return sock_accept(fd, 0, &result);
}

static int receive(int fd)
{
    __wasi_iovec_t vector = {(uint8_t *)buffer, sizeof buffer};
    size_t count;
    uint16_t flags;
    return sock_recv(fd, &vector, 1, 0, &count, &flags);
}

static int send_to(int fd)
{
    __wasi_ciovec_t vector = {(const uint8_t *)"text", 4};
    size_t count;
    return sock_send(fd, &vector, 1, 0, &count);
}

static int shut_down(int fd)
{
    return sock_shutdown(fd, __WASI_SDFLAGS_RD | __WASI_SDFLAGS_WR);
}

int main(void)
{
    size_t count;
    uint16_t flags;
    try_descriptors("sock_accept of", accept_from);
    try_descriptors("sock_recv of", receive);
    try_descriptors("sock_send of", send_to);
    try_descriptors("sock_shutdown of", shut_down);
    int fd = opened("file", 0, READ_WRITE, 0);
    tell(sock_accept(fd, NONBLOCK, &(int){0}), "sock_accept without blocking");
    tell(sock_recv(fd, NULL, 0, 3, &count, &flags), "sock_recv of nothing with all flags");
    tell(sock_send(fd, NULL, 0, 1, &count), "sock_send of nothing with a flag");
    tell(sock_shutdown(fd, 0), "sock_shutdown of neither");
    show_file("in the end", "file");
}
