/* fd_prestat_dir_name: names of preopened directories in buffers of all sizes, and what has no name. */
#include "check.h"

static char buffer[64];

static int get(int fd)
{
    return fd_prestat_dir_name(fd, buffer, sizeof buffer);
}

int main(void)
{
    __wasi_prestat_t prestat;
    for (int fd = ROOT; !fd_prestat_get(fd, &prestat); fd++) {
        size_t length = prestat.u.dir.pr_name_len;
        for (size_t size = 0; size <= length + 2; size++) {
            memset(buffer, '?', sizeof buffer);
            int error = fd_prestat_dir_name(fd, buffer, size);
            tell(error, "descriptor %d into %zu bytes", fd, size);
            if (!error)
                detail("\"%s\"", quoted(buffer, length + 3));
        }
    }
    try_descriptors("fd_prestat_dir_name of", get);
}
