/* fd_sync: any descriptor. */
#include "check.h"

int main(void)
{
    size_t written;
    int fd = opened("new", CREAT, READ_WRITE, 0);
    tell(fd_sync(fd), "empty file");
    need(write_text(fd, "text", &written), "fd_write");
    tell(fd_sync(fd), "written file");
    need(path_unlink_file(ROOT, "new", 3), "path_unlink_file");
    tell(fd_sync(fd), "unlinked file");
    try_descriptors("fd_sync of", fd_sync);
}
