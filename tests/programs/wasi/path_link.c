/* path_link: hard links of files, links and directories, with links followed and not; every kind of path at both ends. */
#include "check.h"

static int link_at(int lookup, const char *from, const char *to)
{
    return path_link(ROOT, lookup, from, strlen(from), ROOT, to, strlen(to));
}

static int from(const char *path, size_t length)
{
    int error = path_link(ROOT, 0, path, length, ROOT, "new", 3);
    if (!error)
        need(path_unlink_file(ROOT, "new", 3), "path_unlink_file");
    return error;
}

static int to(const char *path, size_t length)
{
    int error = path_link(ROOT, 0, "file", 4, ROOT, path, length);
    if (!error)
        need(path_unlink_file(ROOT, path, length), "path_unlink_file");
    return error;
}

static int from_descriptor(int fd)
{
    int error = path_link(fd, 0, "a", 1, ROOT, "new", 3);
    if (!error)
        need(path_unlink_file(ROOT, "new", 3), "path_unlink_file");
    return error;
}

static int to_descriptor(int fd)
{
    int error = path_link(ROOT, 0, "file", 4, fd, "new", 3);
    if (!error)
        need(path_unlink_file(fd, "new", 3), "path_unlink_file");
    return error;
}

static void show(const char *path)
{
    __wasi_filestat_t stat;
    if (!path_filestat_get(ROOT, 0, path, strlen(path), &stat))
        note("%s: type %d, %llu links, %llu bytes", path, stat.filetype, (unsigned long long)stat.nlink,
             (unsigned long long)stat.size);
}

int main(void)
{
    size_t count;
    tell(link_at(0, "file", "one"), "file");
    show("file");
    tell(link_at(0, "one", "directory/two"), "link of a link");
    show("directory/two");
    int fd = opened("directory/two", 0, READ_WRITE, 0);
    need(write_text(fd, "HELLO", &count), "fd_write");
    show_file("written through a hard link", "file");
    tell(link_at(0, "file", "one"), "over an existing link of it");
    tell(link_at(0, "file", "empty"), "over another file");
    tell(link_at(0, "file", "directory"), "over a directory");
    tell(link_at(0, "file", "link"), "over a symbolic link");
    tell(link_at(0, "file", "dangling"), "over a dangling link");
    tell(link_at(0, "file", "file"), "over itself");
    tell(link_at(0, "directory", "new"), "directory");
    tell(link_at(0, "missing", "new"), "missing");
    tell(link_at(0, "file", "missing/new"), "into a missing directory");
    tell(link_at(0, "fifo", "fifo_too"), "fifo");
    show("fifo_too");
    tell(link_at(0, "link", "link_too"), "symbolic link itself");
    show("link_too");
    tell(link_at(0, "dangling", "dangling_too"), "dangling link itself");
    show("dangling_too");
    tell(link_at(0, "leaving", "leaving_too"), "leaving link itself");
    tell(link_at(FOLLOW, "file", "followed_file"), "file, links followed");
    show("followed_file");
    tell(link_at(FOLLOW, "link", "followed_link"), "symbolic link followed");
    show("followed_link");
    tell(link_at(FOLLOW, "dangling", "followed_dangling"), "dangling link followed");
    tell(link_at(FOLLOW, "leaving", "followed_leaving"), "leaving link followed");
    tell(path_link(ROOT, 0, "file", 4, OUTSIDE, "linked", 6), "into another preopened directory");
    tell(path_link(OUTSIDE, 0, "secret", 6, ROOT, "linked", 6), "from another preopened directory");
    show_file("from another preopened directory", "linked");
    tell(path_link(NO_FD, FOLLOW, "", 0, NO_FD, "", 0), "all wrong");
    need(path_unlink_file(ROOT, "one", 3), "path_unlink_file");
    show("file");
    try_descriptors("path_link from", from_descriptor);
    try_descriptors("path_link to", to_descriptor);
    try_paths("path_link from", from);
    try_paths("path_link to", to);
}
