/* fd_write: over and behind the end, append mode, vectors of all sizes, and any descriptor. */
#include "check.h"

static int two_bytes(int fd)
{
    size_t count;
    return write_text(fd, "xy", &count);
}

static int no_vectors(int fd)
{
    size_t count;
    return fd_write(fd, NULL, 0, &count);
}

/* Writes all that `vectors` hold; runtimes may take fewer of them at once. */
static void write_all(const char *label, __wasi_ciovec_t *vectors, size_t count)
{
    int fd = opened("vectors", CREAT | TRUNC, READ_WRITE, 0), error = 0;
    for (size_t first = 0; first < count && !error;) {
        size_t written = 0;
        error = fd_write(fd, vectors + first, count - first, &written);
        while (first < count && written >= vectors[first].buf_len)
            written -= vectors[first++].buf_len;
        if (first < count) {
            vectors[first].buf += written;
            vectors[first].buf_len -= written;
        }
    }
    tell(error, "%s", label);
    note("%s: %llu bytes", label, (unsigned long long)size_of(fd));
    closed(fd);
    show_file(label, "vectors");
}

int main(void)
{
    size_t count = 77;
    uint64_t at;
    char buffer[8];
    int fd = opened("new", CREAT | EXCL, READ_WRITE, 0), other = opened("new", 0, READ_WRITE, 0);
    tell_number(write_text(fd, "hello", &count), count, "five bytes");
    detail("position %llu", (unsigned long long)position(fd));
    tell_number(write_text(fd, "", &count), count, "no bytes");
    tell_number(fd_write(fd, NULL, 0, &count), count, "no vectors");
    tell_number(read_bytes(other, buffer, 8, &count), count, "seen by another descriptor");
    tell_number(write_text(other, ", you", &count), count, "by the other descriptor");
    tell_number(write_text(fd, "!", &count), count, "at the first one's position");
    show_file("so far", "new");
    need(fd_seek(fd, 20, 0, &at), "fd_seek");
    tell_number(write_text(fd, "", &count), count, "no bytes behind the end");
    detail("size %llu", (unsigned long long)size_of(fd));
    tell_number(write_text(fd, "z", &count), count, "behind the end");
    show_file("with a hole", "new");

    int append = opened("new", 0, READ_WRITE, APPEND);
    detail("position in append mode %llu", (unsigned long long)position(append));
    tell_number(write_text(append, "A", &count), count, "in append mode");
    detail("position %llu", (unsigned long long)position(append));
    need(fd_seek(append, 2, 0, &at), "fd_seek");
    tell_number(read_bytes(append, buffer, 3, &count), count, "fd_read in append mode");
    detail("\"%s\"", quoted(buffer, count));
    tell_number(write_text(append, "B", &count), count, "after it");
    detail("position %llu", (unsigned long long)position(append));
    need(fd_seek(append, 2, 0, &at), "fd_seek");
    tell_number(write_text(append, "", &count), count, "no bytes in append mode");
    detail("position %llu", (unsigned long long)position(append));
    need(fd_filestat_set_size(other, 3), "fd_filestat_set_size");
    tell_number(write_text(append, "C", &count), count, "after another one shortened it");
    show_file("in append mode", "new");

    static uint8_t many_bytes[70000];
    for (size_t i = 0; i < sizeof many_bytes; i++)
        many_bytes[i] = (uint8_t)('a' + i / 5000);
    __wasi_ciovec_t one[] = {{many_bytes, sizeof many_bytes}};
    write_all("70000 bytes", one, 1);
    __wasi_ciovec_t some[] = {{many_bytes, 0}, {many_bytes, 7}, {NULL, 0}, {many_bytes + 5000, 20}, {many_bytes, 1}};
    write_all("five vectors", some, 5);
    static __wasi_ciovec_t many[1500];
    for (size_t i = 0; i < 1500; i++)
        many[i] = (__wasi_ciovec_t){many_bytes + i * 40, 3};
    write_all("1024 vectors", many, 1024);
    write_all("1500 vectors", many, 1500);
    __wasi_ciovec_t nothing[] = {{many_bytes, 0}, {NULL, 0}};
    tell_number(fd_write(fd, nothing, 2, &count), count, "two empty vectors");
    static const int flags[] = {DSYNC, NONBLOCK, RSYNC, SYNC, APPEND | DSYNC | NONBLOCK | RSYNC | SYNC};
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        int error = open_at(ROOT, "new", 0, READ_WRITE, flags[i], &fd);
        tell(error ? error : write_text(fd, "D", &count), "opened with flags %d", flags[i]);
    }
    fd = opened("made", CREAT, READ_ONLY, 0);
    tell(write_text(fd, "E", &count), "who made it, without the right");
    int error = open_at(ROOT, "made", TRUNC, READ_ONLY, 0, &fd);
    tell(error ? error : write_text(fd, "E", &count), "who cut it, without the right");
    show_file("in the end", "new");
    try_descriptors("two bytes to", two_bytes);
    try_descriptors("no vectors to", no_vectors);
}
