/* fd_filestat_get: type, size and links of descriptors, and how inodes and times of several relate. */
#include "check.h"

static __wasi_filestat_t last;

static int get(int fd)
{
    memset(&last, 0x55, sizeof last);
    return fd_filestat_get(fd, &last);
}

static __wasi_filestat_t show(const char *label, int fd)
{
    tell(get(fd), "%s", label);
    note("%s: type %d, %llu links, %llu bytes", label, last.filetype, (unsigned long long)last.nlink,
         (unsigned long long)(last.filetype == __WASI_FILETYPE_DIRECTORY ? 0 : last.size));
    return last;
}

static __wasi_filestat_t show_path(const char *path)
{
    int fd = opened(path, 0, READ_ONLY, 0);
    __wasi_filestat_t stat = show(path, fd);
    closed(fd);
    return stat;
}

int main(void)
{
    size_t written;
    __wasi_filestat_t file = show_path("file"), link = show_path("link"), directory = show_path("directory");
    show_path("empty");
    __wasi_filestat_t one = show_path("hard_link"), other = show_path("hard_link_too");
    show_path("directory_link");
    show_path("empty_directory");
    show("preopened directory", ROOT);
    __wasi_filestat_t itself = show_path(".");
    need(get(ROOT), "fd_filestat_get");
    note("inodes: link and file %d, hard links %d, file and directory %d, . and the directory %d", file.ino == link.ino,
         one.ino == other.ino, file.ino == directory.ino, itself.ino == last.ino);
    note("devices: file and directory %d, file and link %d", file.dev == directory.dev, file.dev == link.dev);
    note("times are set: %d %d %d", file.atim > UINT64_C(1500000000000000000), file.mtim > UINT64_C(1500000000000000000),
         file.ctim > UINT64_C(1500000000000000000));

    int fd = opened("new", CREAT, READ_WRITE, 0), twin = opened("new", 0, READ_ONLY, 0);
    __wasi_filestat_t before = show("new file", fd);
    need(write_text(fd, "text", &written), "fd_write");
    __wasi_filestat_t after = show("written file", fd);
    show("its other descriptor", twin);
    detail("same inode %d, time goes on %d %d", before.ino == after.ino, after.mtim >= before.mtim, after.ctim >= before.ctim);
    __wasi_filestat_t by_path;
    need(path_filestat_get(ROOT, 0, "new", 3, &by_path), "path_filestat_get");
    note("by path: same inode %d, device %d, size %d, times %d %d %d", by_path.ino == after.ino, by_path.dev == after.dev,
         by_path.size == after.size, by_path.atim == after.atim, by_path.mtim == after.mtim, by_path.ctim == after.ctim);
    need(fd_filestat_set_size(fd, 3000), "fd_filestat_set_size");
    show("extended file", fd);
    need(path_link(ROOT, 0, "new", 3, ROOT, "twin", 4), "path_link");
    show("file with a hard link", fd);
    need(path_rename(ROOT, "new", 3, ROOT, "renamed", 7), "path_rename");
    show("renamed file", fd);
    detail("same inode %d", last.ino == after.ino);
    need(path_unlink_file(ROOT, "twin", 4), "path_unlink_file");
    need(path_unlink_file(ROOT, "renamed", 7), "path_unlink_file");
    show("unlinked file", fd);
    show("its other descriptor", twin);

    need(path_create_directory(ROOT, "made", 4), "path_create_directory");
    int made = opened("made", DIRECTORY, READ_ONLY, 0);
    show("new directory", made);
    need(path_create_directory(made, "inside", 6), "path_create_directory");
    show("with a directory inside", made);
    need(path_remove_directory(made, "inside", 6), "path_remove_directory");
    need(path_remove_directory(ROOT, "made", 4), "path_remove_directory");
    show("removed directory", made);
    try_descriptors("fd_filestat_get of", get);
}
