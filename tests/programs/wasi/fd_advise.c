/* fd_advise: every advice, any region, any descriptor. */
#include "check.h"

static int normal(int fd)
{
    return fd_advise(fd, 0, 0, __WASI_ADVICE_NORMAL);
}

int main(void)
{
    int fd = opened("file", 0, READ_WRITE, 0);
    for (int advice = 0; advice <= 5; advice++)
        tell(fd_advise(fd, 0, 13, advice), "advice %d", advice);
    tell(fd_advise(fd, 0, 0, 0), "empty region");
    tell(fd_advise(fd, 1000, 1000, 3), "region behind the end");
    tell(fd_advise(fd, INT64_MAX, 0, 0), "offset 2^63-1");
    tell(fd_advise(fd, INT64_MAX, 1, 0), "offset 2^63-1, a byte");
    tell(fd_advise(fd, UINT64_MAX, 0, 0), "offset 2^64-1");
    tell(fd_advise(fd, 0, INT64_MAX, 0), "length 2^63-1");
    tell(fd_advise(fd, 0, UINT64_C(1) << 63, 0), "length 2^63");
    tell(fd_advise(fd, 0, UINT64_MAX, 0), "length 2^64-1");
    tell(fd_advise(fd, UINT64_MAX, UINT64_MAX, 0), "both 2^64-1");
    try_descriptors("normal advice for", normal);
    show_file("in the end", "file");
}
