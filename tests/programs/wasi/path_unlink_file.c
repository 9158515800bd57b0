/* path_unlink_file: files, links, directories, what is open, and every kind of path. */
#include "check.h"

static int unlink_at(const char *path)
{
    return path_unlink_file(ROOT, path, strlen(path));
}

static int any(const char *path, size_t length)
{
    return path_unlink_file(ROOT, path, length);
}

static int inside(int fd)
{
    return path_unlink_file(fd, "b", 1);
}

int main(void)
{
    size_t count;
    char buffer[8];
    __wasi_filestat_t stat;
    keep_or_restore(false);
    tell(unlink_at("empty"), "file");
    tell(unlink_at("empty"), "again");
    tell(unlink_at("directory"), "directory");
    tell(unlink_at("directory/"), "directory with a slash");
    tell(unlink_at("empty_directory"), "empty directory");
    tell(unlink_at("fifo"), "fifo");
    tell(unlink_at("link_to_link"), "link");
    tell(unlink_at("directory_link/a"), "through a link");
    tell(unlink_at("hard_link"), "one of two hard links");
    need(path_filestat_get(ROOT, 0, "hard_link_too", 13, &stat), "path_filestat_get");
    note("links of the other: %llu", (unsigned long long)stat.nlink);

    make_file("open", "text");
    int fd = opened("open", 0, READ_WRITE, 0);
    tell(unlink_at("open"), "open file");
    tell(open_at(ROOT, "open", 0, READ_ONLY, 0, &(int){0}), "path_open of it");
    tell_number(read_bytes(fd, buffer, 8, &count), count, "fd_read of it");
    tell_number(write_text(fd, "more", &count), count, "fd_write of it");
    detail("size %llu", (unsigned long long)size_of(fd));
    make_file("open", "another");
    show_file("a new file of its name", "open");
    detail("size of the old one %llu", (unsigned long long)size_of(fd));
    int directory = opened("directory", DIRECTORY, READ_ONLY, 0);
    tell(path_unlink_file(directory, "../file", 7), "beside a directory opened");
    tell(path_unlink_file(directory, "up", 2), "link in a directory opened");
    try_descriptors("path_unlink_file in", inside);
    try_paths("path_unlink_file", any);
}
