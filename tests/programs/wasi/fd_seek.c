/* fd_seek: every origin, before the start, behind the end, beyond numbers, and any descriptor. */
#include "check.h"

enum { SET, CUR, END };

static int start(int fd)
{
    uint64_t at;
    return fd_seek(fd, 0, SET, &at);
}

static int here(int fd)
{
    uint64_t at;
    return fd_seek(fd, 0, CUR, &at);
}

static void seek(const char *label, int fd, int64_t offset, int whence)
{
    uint64_t at = 0;
    tell_number(fd_seek(fd, offset, whence, &at), at, "%s", label);
    note("%s: position %llu", label, (unsigned long long)position(fd));
}

int main(void)
{
    size_t count;
    char buffer[4];
    int fd = opened("file", 0, READ_WRITE, 0);
    seek("set 5", fd, 5, SET);
    seek("current 0", fd, 0, CUR);
    seek("current +3", fd, 3, CUR);
    seek("current -6", fd, -6, CUR);
    tell_number(read_bytes(fd, buffer, 4, &count), count, "fd_read there");
    detail("\"%s\", position %llu", quoted(buffer, count), (unsigned long long)position(fd));
    seek("end 0", fd, 0, END);
    seek("end -3", fd, -3, END);
    seek("end +100", fd, 100, END);
    detail("size %llu", (unsigned long long)size_of(fd));
    seek("set -1", fd, -1, SET);
    seek("end -14", fd, -14, END);
    seek("end -13", fd, -13, END);
    seek("current -1 at the start", fd, -1, CUR);
    seek("set 2^40", fd, INT64_C(1) << 40, SET);
    seek("current +2^63-1 at 2^40", fd, INT64_MAX, CUR);
    seek("set 0", fd, 0, SET);
    seek("set -2^63", fd, INT64_MIN, SET);
    seek("current -2^63", fd, INT64_MIN, CUR);
    seek("end -2^63", fd, INT64_MIN, END);
    seek("end +2^63-1", fd, INT64_MAX, END);
    seek("set 2 again", fd, 2, SET);
    tell(fd_seek(NO_FD, -1, SET, &(uint64_t){0}), "wrong descriptor and offset");
    tell(fd_seek(ROOT, -1, SET, &(uint64_t){0}), "directory and wrong offset");
    int append = opened("file", 0, READ_WRITE, APPEND);
    seek("set 2 in append mode", append, 2, SET);
    seek("end -1 in append mode", append, -1, END);
    int read_right = opened("file", 0, __WASI_RIGHTS_FD_READ, 0);
    tell(start(read_right), "with the right to read alone");
    tell(here(read_right), "asking where, with the right to read alone");
    try_descriptors("to the start of", start);
    try_descriptors("nowhere in", here);
}
