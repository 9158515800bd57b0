/* fd_datasync: any descriptor. */
#include "check.h"

int main(void)
{
    size_t written;
    int fd = opened("new", CREAT, READ_WRITE, 0);
    tell(fd_datasync(fd), "empty file");
    need(write_text(fd, "text", &written), "fd_write");
    tell(fd_datasync(fd), "written file");
    need(path_unlink_file(ROOT, "new", 3), "path_unlink_file");
    tell(fd_datasync(fd), "unlinked file");
    try_descriptors("fd_datasync of", fd_datasync);
}
