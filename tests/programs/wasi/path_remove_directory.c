/* path_remove_directory: empty, full, open and missing ones, what is none, and every kind of path. */
#include "check.h"

static int remove_at(const char *path)
{
    return path_remove_directory(ROOT, path, strlen(path));
}

static int any(const char *path, size_t length)
{
    return path_remove_directory(ROOT, path, length);
}

static int inside(int fd)
{
    return path_remove_directory(fd, "nested", 6);
}

static void make_new(void)
{
    int error = path_create_directory(ROOT, "new", 3);
    if (error != __WASI_ERRNO_EXIST)
        need(error, "path_create_directory");
}

int main(void)
{
    size_t used;
    char buffer[256];
    tell(remove_at("empty_directory"), "empty");
    tell(remove_at("empty_directory"), "again");
    tell(remove_at("directory"), "not empty");
    tell(remove_at("directory/"), "not empty, with a slash");
    tell(remove_at("file"), "file");
    tell(remove_at("fifo"), "fifo");
    tell(remove_at("link"), "link to a file");
    tell(remove_at("directory_link"), "link to a directory");
    tell(remove_at("directory_link/"), "link to a directory, with a slash");
    tell(remove_at("dangling"), "dangling link");
    make_new();
    tell(remove_at("new/"), "with a slash");
    make_new();
    tell(remove_at("new/."), "dot in it");
    tell(remove_at("new/.."), "its parent");
    tell(remove_at("./new"), "with a dot before");
    make_new();
    tell(remove_at("new///"), "with three slashes");
    make_new();
    need(path_symlink("new", 3, ROOT, "to_new", 6), "path_symlink");
    tell(remove_at("to_new"), "link to an empty directory");
    tell(remove_at("to_new/"), "link to an empty directory, with a slash");
    need(path_unlink_file(ROOT, "to_new", 6), "path_unlink_file");

    int fd = opened("new", DIRECTORY, READ_ONLY, 0);
    tell(path_remove_directory(fd, ".", 1), "itself by its descriptor");
    tell(path_remove_directory(fd, "..", 2), "its parent by its descriptor");
    tell(path_remove_directory(fd, "../new", 6), "itself by its parent");
    tell(remove_at("new"), "open");
    tell(open_at(fd, "x", CREAT, READ_WRITE, 0, &(int){0}), "path_open in what is removed");
    tell(fd_readdir(fd, buffer, sizeof buffer, 0, &used), "fd_readdir of it");
    tell(fd_close(fd), "fd_close of it");
    tell(path_remove_directory(ROOT, ".", 1), "preopened directory");
    try_descriptors("path_remove_directory in", inside);
    try_paths("path_remove_directory", any);
}
