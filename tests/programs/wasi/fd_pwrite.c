/* fd_pwrite: any offset, any vectors, append mode, any descriptor; the position stays where it is. */
#include "check.h"

static int two_bytes(int fd)
{
    size_t count;
    return pwrite_text(fd, "xy", 0, &count);
}

static int no_vectors(int fd)
{
    size_t count;
    return fd_pwrite(fd, NULL, 0, 0, &count);
}

int main(void)
{
    size_t count;
    uint64_t at;
    make_file("new", "hello, world");
    int fd = opened("new", 0, READ_WRITE, 0);
    need(fd_seek(fd, 3, 0, &at), "fd_seek");
    tell_number(pwrite_text(fd, "HE", 0, &count), count, "at the start");
    tell_number(pwrite_text(fd, "WORLD!", 7, &count), count, "over the end");
    detail("position %llu", (unsigned long long)position(fd));
    show_file("so far", "new");
    tell_number(pwrite_text(fd, "end", 20, &count), count, "behind the end");
    show_file("with a hole", "new");
    tell_number(pwrite_text(fd, "", 100, &count), count, "no bytes");
    tell_number(fd_pwrite(fd, NULL, 0, 100, &count), count, "no vectors");
    detail("size %llu", (unsigned long long)size_of(fd));
    tell_number(pwrite_text(fd, "x", INT64_MAX, &count), count, "offset 2^63-1");
    tell_number(pwrite_text(fd, "x", UINT64_C(1) << 63, &count), count, "offset 2^63");
    tell_number(pwrite_text(fd, "x", UINT64_MAX, &count), count, "offset 2^64-1");
    tell_number(pwrite_text(fd, "", UINT64_MAX, &count), count, "no bytes, offset 2^64-1");
    __wasi_ciovec_t vectors[] = {{NULL, 0}, {(const uint8_t *)"ab", 2}};
    tell_number(fd_pwrite(fd, vectors, 2, 1, &count), count, "an empty vector first");
    show_file("so far", "new");

    int append = opened("new", 0, READ_WRITE, APPEND);
    tell_number(pwrite_text(append, "+", 0, &count), count, "in append mode");
    detail("position %llu", (unsigned long long)position(append));
    show_file("in append mode", "new");
    try_descriptors("two bytes to", two_bytes);
    try_descriptors("no vectors to", no_vectors);
    show_file("kinds", "kinds");
}
