/* fd_prestat_get: preopened directories, and what is none. */
#include "check.h"

static __wasi_prestat_t last;

static int get(int fd)
{
    memset(&last, 0x55, sizeof last);
    return fd_prestat_get(fd, &last);
}

int main(void)
{
    for (int fd = 0; fd < 8; fd++) {
        int error = get(fd);
        tell_number(error, error ? 0 : last.u.dir.pr_name_len, "descriptor %d", fd);
        if (!error)
            note("descriptor %d: type %d", fd, last.tag);
    }
    try_descriptors("fd_prestat_get of", get);
}
