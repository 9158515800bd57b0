/* What the programs with sockets share: descriptor 3 listens, and lines that begin with "client:" are carried out by
 * tests/conformance.rs at the other end. */
#ifndef SOCKET_H
#define SOCKET_H

#include "check.h"

enum { LISTENER = 3, PEEK = 1, WAITALL = 2, RD = 1, WR = 2 };

/* Waits for one of __WASI_EVENTTYPE_FD_READ and _WRITE; returns the errno of the call or of the event. */
static inline int wait_for(int fd, uint8_t type, int *flags)
{
    __wasi_subscription_t subscription = {.u.tag = type, .u.u.fd_read.file_descriptor = fd};
    __wasi_event_t event;
    size_t count;
    int error = poll_oneoff(&subscription, &event, 1, &count);
    *flags = event.fd_readwrite.flags;
    return error ? error : event.error;
}

/* The other end connects; what that leads to here. */
static inline int connected(int flags)
{
    int fd = -1, ignored;
    note("client: connect");
    need(wait_for(LISTENER, __WASI_EVENTTYPE_FD_READ, &ignored), "poll_oneoff");
    need(sock_accept(LISTENER, flags, &fd), "sock_accept");
    return fd;
}

static inline int receive(int fd, void *buffer, size_t length, int flags, size_t *count, uint16_t *result_flags)
{
    __wasi_iovec_t vector = {buffer, length};
    *count = 0;
    *result_flags = 0;
    return sock_recv(fd, &vector, 1, flags, count, result_flags);
}

static inline int send_text(int fd, const char *text, size_t *count)
{
    __wasi_ciovec_t vector = {(const uint8_t *)text, strlen(text)};
    *count = 0;
    return sock_send(fd, &vector, 1, 0, count);
}

/* The line "label: errno", and what came. */
static inline void show_received(const char *label, int fd, size_t length, int flags)
{
    char buffer[64];
    size_t count;
    uint16_t result_flags;
    int error = receive(fd, buffer, length, flags, &count, &result_flags);
    tell_number(error, count, "%s", label);
    if (!error)
        note("%s: \"%s\", flags %d", label, quoted(buffer, count), result_flags);
}

#endif
