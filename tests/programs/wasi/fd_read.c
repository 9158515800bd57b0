/* fd_read: short and long reads, vectors of all sizes, the end, holes, and any descriptor. */
#include "check.h"

static int two_bytes(int fd)
{
    char buffer[2];
    size_t count;
    return fd == 0 ? 0 : read_bytes(fd, buffer, 2, &count);
}

static int no_vectors(int fd)
{
    size_t count;
    return fd_read(fd, NULL, 0, &count);
}

/* Reads to the end with `vectors`, which lie one behind the other in `buffer`; runtimes may fill fewer of them. */
static void read_all(const char *label, const __wasi_iovec_t *vectors, size_t count, size_t bytes)
{
    static uint8_t whole[20000];
    int fd = opened("numbers", 0, READ_ONLY, 0), error = 0;
    size_t used = 0, got = 1;
    while (!error && got && used + bytes <= sizeof whole) {
        error = fd_read(fd, vectors, count, &got);
        size_t left = error ? 0 : got;
        for (size_t i = 0; i < count && left; i++) {
            size_t here = left < vectors[i].buf_len ? left : vectors[i].buf_len;
            memcpy(whole + used, vectors[i].buf, here);
            used += here;
            left -= here;
        }
    }
    uint32_t sum = 1;
    for (size_t i = 0; i < used; i++)
        sum = sum * 31 + whole[i];
    tell(error, "%s", label);
    note("%s: %zu bytes, sum %08x", label, used, sum);
    closed(fd);
}

int main(void)
{
    size_t count = 77;
    uint64_t at;
    static uint8_t buffer[16384];
    int fd = opened("file", 0, READ_ONLY, 0), other = opened("file", 0, READ_ONLY, 0);
    tell_number(read_bytes(fd, buffer, 5, &count), count, "five bytes");
    detail("\"%s\", position %llu", quoted(buffer, count), (unsigned long long)position(fd));
    tell_number(read_bytes(fd, buffer, 0, &count), count, "no bytes");
    tell_number(fd_read(fd, NULL, 0, &count), count, "no vectors");
    memset(buffer, '?', 32);
    tell_number(read_bytes(fd, buffer, 32, &count), count, "more than there is");
    detail("\"%s\", position %llu", quoted(buffer, 32), (unsigned long long)position(fd));
    tell_number(read_bytes(fd, buffer, 32, &count), count, "at the end");
    tell_number(read_bytes(other, buffer, 5, &count), count, "another descriptor has its own position");
    detail("\"%s\"", quoted(buffer, count));
    need(fd_seek(fd, 100, 0, &at), "fd_seek");
    tell_number(read_bytes(fd, buffer, 32, &count), count, "behind the end");
    detail("position %llu", (unsigned long long)position(fd));
    need(fd_seek(fd, INT64_C(1) << 40, 0, &at), "fd_seek");
    tell_number(read_bytes(fd, buffer, 1, &count), count, "at 2^40");
    int empty = opened("empty", 0, READ_ONLY, 0);
    tell_number(read_bytes(empty, buffer, 1, &count), count, "empty file");

    __wasi_iovec_t one[] = {{buffer, sizeof buffer}};
    read_all("one vector", one, 1, sizeof buffer);
    __wasi_iovec_t some[] = {{buffer, 0}, {buffer, 7}, {buffer + 7, 0}, {buffer + 7, 100}, {buffer + 107, 1}, {NULL, 0}};
    read_all("six vectors", some, 6, 108);
    static __wasi_iovec_t many[1500];
    for (size_t i = 0; i < 1500; i++)
        many[i] = (__wasi_iovec_t){buffer + i, 1};
    read_all("16 vectors", many, 16, 16);
    read_all("1024 vectors", many, 1024, 1024);
    read_all("1025 vectors", many, 1025, 1025);
    read_all("1500 vectors", many, 1500, 1500);
    __wasi_iovec_t nothing[] = {{buffer, 0}, {NULL, 0}};
    tell_number(fd_read(other, nothing, 2, &count), count, "two empty vectors");

    int changing = opened("new", CREAT, READ_WRITE, 0), reader = opened("new", 0, READ_ONLY, 0);
    tell_number(read_bytes(reader, buffer, 8, &count), count, "before a write");
    need(write_text(changing, "text", &count), "fd_write");
    tell_number(read_bytes(reader, buffer, 8, &count), count, "after a write");
    tell_number(read_bytes(changing, buffer, 8, &count), count, "by the writer");
    need(path_unlink_file(ROOT, "new", 3), "path_unlink_file");
    need(write_text(changing, " more", &count), "fd_write");
    tell_number(read_bytes(reader, buffer, 8, &count), count, "of an unlinked file");
    detail("\"%s\"", quoted(buffer, count));
    try_descriptors("two bytes of", two_bytes);
    try_descriptors("no vectors from", no_vectors);
}
