/* path_create_directory: new ones, existing ones, and every kind of path. */
#include "check.h"

static int create(const char *path)
{
    return path_create_directory(ROOT, path, strlen(path));
}

static int create_and_remove(const char *path, size_t length)
{
    int error = path_create_directory(ROOT, path, length);
    while (!error && path[length - 1] == '/')
        length--;
    if (!error)
        need(path_remove_directory(ROOT, path, length), "path_remove_directory");
    return error;
}

static int inside(int fd)
{
    int error = path_create_directory(fd, "made_inside", 11);
    if (!error)
        need(path_remove_directory(fd, "made_inside", 11), "path_remove_directory");
    return error;
}

int main(void)
{
    __wasi_filestat_t stat;
    tell(create("new"), "new");
    tell(create("new"), "new again");
    tell(create("new/inside"), "inside");
    tell(create("new/inside/deep/"), "with a slash behind");
    need(path_filestat_get(ROOT, 0, "new", 3, &stat), "path_filestat_get");
    detail("type %d, %llu links", stat.filetype, (unsigned long long)stat.nlink);
    tell(create("file"), "file");
    tell(create("directory"), "directory");
    tell(create("fifo"), "fifo");
    tell(create("directory_link/new"), "through a link");
    tell(create("no/parent"), "without a parent");

    int directory = opened("new", DIRECTORY, READ_ONLY, 0);
    tell(path_create_directory(directory, "by_descriptor", 13), "in a directory opened");
    tell(path_create_directory(directory, "../beside", 9), "beside a directory opened");
    need(path_remove_directory(ROOT, "empty_directory", 15), "path_remove_directory");
    tell(create("empty_directory"), "again what was removed");
    int removed = opened("empty_directory", DIRECTORY, READ_ONLY, 0);
    need(path_remove_directory(ROOT, "empty_directory", 15), "path_remove_directory");
    tell(path_create_directory(removed, "x", 1), "in a removed directory");
    try_descriptors("path_create_directory in", inside);
    try_paths("path_create_directory", create_and_remove);
}
