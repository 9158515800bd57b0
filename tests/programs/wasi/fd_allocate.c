/* fd_allocate: inside, at and behind the end of a file, and regions that there cannot be. */
#include "check.h"

static int four_bytes(int fd)
{
    return fd_allocate(fd, 0, 4);
}

int main(void)
{
    make_file("new", "text");
    int fd = opened("new", 0, READ_WRITE, 0);
    tell(fd_allocate(fd, 0, 4), "what is there");
    tell(fd_allocate(fd, 0, 10), "behind the end");
    detail("size %llu, position %llu", (unsigned long long)size_of(fd), (unsigned long long)position(fd));
    tell(fd_allocate(fd, 20, 5), "after a gap");
    show_file("after a gap", "new");
    tell(fd_allocate(fd, 0, 0), "nothing");
    tell(fd_allocate(fd, 100, 0), "nothing behind the end");
    tell(fd_allocate(fd, INT64_MAX, 1), "end at 2^63");
    tell(fd_allocate(fd, UINT64_C(1) << 63, 1), "offset 2^63");
    tell(fd_allocate(fd, 0, UINT64_MAX), "length 2^64-1");
    tell(fd_allocate(fd, UINT64_MAX, UINT64_MAX), "both 2^64-1");
    show_file("in the end", "new");
    try_descriptors("four bytes of", four_bytes);
    show_file("kinds", "kinds");
}
