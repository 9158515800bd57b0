/* fd_pread: any offset, any vectors, any descriptor; the position stays where it is. */
#include "check.h"

static int two_bytes(int fd)
{
    char buffer[2];
    size_t count;
    return pread_bytes(fd, buffer, 2, 0, &count);
}

static int no_vectors(int fd)
{
    size_t count;
    return fd_pread(fd, NULL, 0, 0, &count);
}

int main(void)
{
    size_t count = 77;
    uint64_t at;
    char buffer[32] = "";
    int fd = opened("file", 0, READ_ONLY, 0);
    tell_number(pread_bytes(fd, buffer, 5, 0, &count), count, "from the start");
    detail("\"%s\", position %llu", quoted(buffer, count), (unsigned long long)position(fd));
    need(fd_seek(fd, 3, 0, &at), "fd_seek");
    tell_number(pread_bytes(fd, buffer, 5, 7, &count), count, "from 7");
    detail("\"%s\", position %llu", quoted(buffer, count), (unsigned long long)position(fd));
    tell_number(pread_bytes(fd, buffer, 32, 10, &count), count, "over the end");
    detail("\"%s\"", quoted(buffer, count));
    tell_number(pread_bytes(fd, buffer, 32, 13, &count), count, "at the end");
    tell_number(pread_bytes(fd, buffer, 32, 1000, &count), count, "behind the end");
    tell_number(pread_bytes(fd, buffer, 0, 0, &count), count, "no bytes");
    tell_number(pread_bytes(fd, buffer, 1, INT64_MAX, &count), count, "offset 2^63-1");
    tell_number(pread_bytes(fd, buffer, 1, UINT64_C(1) << 63, &count), count, "offset 2^63");
    tell_number(pread_bytes(fd, buffer, 1, UINT64_MAX, &count), count, "offset 2^64-1");
    tell_number(fd_pread(fd, NULL, 0, 0, &count), count, "no vectors");
    tell_number(fd_pread(fd, NULL, 0, UINT64_MAX, &count), count, "no vectors, offset 2^64-1");
    __wasi_iovec_t vectors[] = {{NULL, 0}, {(uint8_t *)buffer, 4}};
    tell_number(fd_pread(fd, vectors, 2, 0, &count), count, "an empty vector first");
    detail("\"%s\"", quoted(buffer, count));

    int append = opened("file", 0, READ_WRITE, APPEND);
    tell_number(pread_bytes(append, buffer, 5, 2, &count), count, "in append mode");
    try_descriptors("two bytes of", two_bytes);
    try_descriptors("no vectors from", no_vectors);
}
