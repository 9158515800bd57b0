/* path_symlink: targets of all kinds, over what exists, and every kind of path. */
#include "check.h"

static int link_at(const char *target, const char *path)
{
    return path_symlink(target, strlen(target), ROOT, path, strlen(path));
}

static int to(const char *path, size_t length)
{
    int error = path_symlink(path, length, ROOT, "new", 3);
    if (!error)
        need(path_unlink_file(ROOT, "new", 3), "path_unlink_file");
    return error;
}

static int at(const char *path, size_t length)
{
    int error = path_symlink("file", 4, ROOT, path, length);
    if (!error)
        need(path_unlink_file(ROOT, path, length), "path_unlink_file");
    return error;
}

static int inside(int fd)
{
    int error = path_symlink("file", 4, fd, "new", 3);
    if (!error)
        need(path_unlink_file(fd, "new", 3), "path_unlink_file");
    return error;
}

int main(void)
{
    __wasi_filestat_t stat;
    tell(link_at("file", "one"), "to a file");
    show_file("through it", "one");
    need(path_filestat_get(ROOT, 0, "one", 3, &stat), "path_filestat_get");
    detail("type %d, %llu links, %llu bytes", stat.filetype, (unsigned long long)stat.nlink, (unsigned long long)stat.size);
    tell(link_at("file", "one"), "again");
    tell(link_at("nowhere_at_all", "two"), "to nothing");
    show_file("through it", "two");
    make_file("nowhere_at_all", "something");
    show_file("through it, when there is something", "two");
    tell(link_at("directory", "three"), "to a directory");
    show_file("through it", "three/a");
    tell(link_at("../file", "directory/four"), "from inside a directory");
    show_file("through it", "directory/four");
    tell(link_at("five", "five"), "to itself");
    show_file("through it", "five");
    tell(link_at("../outside/secret", "six"), "to outside");
    show_file("through it", "six");
    tell(link_at("/etc/passwd", "seven"), "to an absolute path");
    show_file("through it", "seven");
    tell(link_at("file", "file"), "over a file");
    tell(link_at("file", "directory"), "over a directory");
    tell(link_at("file", "dangling"), "over a dangling link");
    tell(link_at("file", "missing/new"), "in a missing directory");
    tell(link_at("directory/nested/", "eight"), "to a directory with a slash");
    show_file("through it", "eight/deep");
    int directory = opened("directory", DIRECTORY, READ_ONLY, 0);
    tell(path_symlink("a", 1, directory, "nine", 4), "in a directory opened");
    show_file("through it", "directory/nine");
    tell(path_symlink("a", 1, directory, "../ten", 6), "beside a directory opened");
    tell(path_symlink("", 0, NO_FD, "", 0), "all wrong");
    try_descriptors("path_symlink in", inside);
    try_paths("path_symlink to", to);
    try_paths("path_symlink at", at);
}
