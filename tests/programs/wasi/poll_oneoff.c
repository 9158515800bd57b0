/* poll_oneoff: clocks, files and streams, alone and together, and subscriptions that cannot be. */
#include "check.h"

static __wasi_event_t events[8];

static __wasi_subscription_t clock_at(uint64_t userdata, uint32_t id, uint64_t timeout, uint16_t flags)
{
    __wasi_subscription_t subscription = {.userdata = userdata};
    subscription.u.tag = __WASI_EVENTTYPE_CLOCK;
    subscription.u.u.clock.id = id;
    subscription.u.u.clock.timeout = timeout;
    subscription.u.u.clock.flags = flags;
    return subscription;
}

static __wasi_subscription_t stream(uint64_t userdata, uint8_t type, int fd)
{
    __wasi_subscription_t subscription = {.userdata = userdata};
    subscription.u.tag = type;
    subscription.u.u.fd_read.file_descriptor = fd;
    return subscription;
}

static void show(const char *label, const __wasi_subscription_t *subscriptions, size_t count)
{
    size_t result = 99;
    memset(events, 0x55, sizeof events);
    int error = poll_oneoff(subscriptions, events, count, &result);
    tell_number(error, result, "%s", label);
    for (size_t i = 0; !error && i < result; i++) {
        const __wasi_event_t *event = &events[i];
        note("%s: event %llu, type %d, %s", label, (unsigned long long)event->userdata, event->type, errno_name(event->error));
        if (event->type != __WASI_EVENTTYPE_CLOCK && !event->error)
            note("bytes of %s: %llu, flags %d", label, (unsigned long long)event->fd_readwrite.nbytes, event->fd_readwrite.flags);
    }
}

static int wait_read(int fd)
{
    if (fd == 2)
        return 0; /* It may be a pipe that nobody ever writes into. */
    __wasi_subscription_t one = stream(7, __WASI_EVENTTYPE_FD_READ, fd);
    size_t count = 0;
    int error = poll_oneoff(&one, events, 1, &count);
    return error ? error : events[0].error;
}

static int wait_write(int fd)
{
    __wasi_subscription_t one = stream(7, __WASI_EVENTTYPE_FD_WRITE, fd);
    size_t count = 0;
    int error = poll_oneoff(&one, events, 1, &count);
    return error ? error : events[0].error;
}

int main(void)
{
    const uint64_t millisecond = 1000000, hour = UINT64_C(3600000000000);
    uint64_t at;
    __wasi_subscription_t subscriptions[4];
    show("nothing", subscriptions, 0);

    subscriptions[0] = clock_at(1, 0, 0, 0);
    show("real time, at once", subscriptions, 1);
    subscriptions[0] = clock_at(2, 1, millisecond, 0);
    show("monotonic time, a millisecond", subscriptions, 1);
    subscriptions[0] = clock_at(3, 0, 1, 1);
    show("real time, long ago", subscriptions, 1);
    subscriptions[0] = clock_at(4, 1, 1, 1);
    show("monotonic time, long ago", subscriptions, 1);
    subscriptions[0] = clock_at(UINT64_MAX, 1, 0, 0);
    show("userdata 2^64-1", subscriptions, 1);
    subscriptions[0] = clock_at(5, 0, millisecond, 0);
    subscriptions[1] = clock_at(6, 1, hour, 0);
    show("the first of two", subscriptions, 2);
    subscriptions[0] = clock_at(5, 1, hour, 0);
    subscriptions[1] = clock_at(6, 1, millisecond, 0);
    show("the second of two", subscriptions, 2);
    subscriptions[0] = clock_at(5, 1, 0, 0);
    subscriptions[1] = clock_at(6, 1, 0, 0);
    show("both of two", subscriptions, 2);
    subscriptions[0] = clock_at(7, 2, 0, 0);
    show("time of the process", subscriptions, 1);
    subscriptions[0] = clock_at(7, 2, 1, 1);
    show("time of the process, long ago", subscriptions, 1);

    int file = opened("file", 0, READ_WRITE, 0), empty = opened("empty", 0, READ_WRITE, 0);
    subscriptions[0] = stream(8, __WASI_EVENTTYPE_FD_READ, file);
    show("file to read", subscriptions, 1);
    need(fd_seek(file, 10, 0, &at), "fd_seek");
    show("file to read from 10", subscriptions, 1);
    need(fd_seek(file, 0, 2, &at), "fd_seek");
    show("file to read from its end", subscriptions, 1);
    subscriptions[0] = stream(9, __WASI_EVENTTYPE_FD_READ, empty);
    show("empty file to read", subscriptions, 1);
    subscriptions[0] = stream(10, __WASI_EVENTTYPE_FD_WRITE, file);
    show("file to write", subscriptions, 1);
    subscriptions[0] = stream(11, __WASI_EVENTTYPE_FD_WRITE, 1);
    show("standard output to write", subscriptions, 1);
    subscriptions[0] = stream(12, __WASI_EVENTTYPE_FD_READ, 0);
    show("standard input, which is empty", subscriptions, 1);

    subscriptions[0] = stream(13, __WASI_EVENTTYPE_FD_READ, file);
    subscriptions[1] = stream(14, __WASI_EVENTTYPE_FD_WRITE, file);
    show("file to read and to write", subscriptions, 2);
    subscriptions[0] = clock_at(15, 1, hour, 0);
    show("file and an hour", subscriptions, 2);
    subscriptions[0] = stream(16, __WASI_EVENTTYPE_FD_READ, file);
    subscriptions[1] = stream(17, __WASI_EVENTTYPE_FD_READ, NO_FD);
    show("file and no descriptor", subscriptions, 2);
    subscriptions[0] = clock_at(18, 1, millisecond, 0);
    show("millisecond and no descriptor", subscriptions, 2);

    try_descriptors("waiting to read", wait_read);
    try_descriptors("waiting to write", wait_write);
}
