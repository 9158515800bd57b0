/* path_filestat_get: type, size and links by path, with links followed and not, and every kind of path. */
#include "check.h"

static __wasi_filestat_t last;
static int lookup;

static int get(const char *path, size_t length)
{
    memset(&last, 0x55, sizeof last);
    return path_filestat_get(ROOT, lookup, path, length, &last);
}

static int inside(int fd)
{
    return path_filestat_get(fd, 0, "a", 1, &last);
}

static void show(const char *path)
{
    int error = get(path, strlen(path));
    if (error)
        tell(error, "%s%s", path, lookup ? " followed" : "");
    else
        note("%s%s: type %d, %llu links, %llu bytes", path, lookup ? " followed" : "", last.filetype,
             (unsigned long long)last.nlink,
             (unsigned long long)(last.filetype == __WASI_FILETYPE_DIRECTORY ? 0 : last.size));
}

int main(void)
{
    static const char *const paths[] = {
        ".", "file", "empty", "numbers", "hard_link", "directory", "directory/a", "directory/", "empty_directory", "fifo",
        "link", "link/", "link_to_link", "directory_link", "directory_link/", "directory_link/a", "dangling", "loop", "loop_a",
        "leaving", "leaving_directory", "absolute", "absolute_host", "directory/up", "missing",
    };
    for (lookup = 0; lookup < 2; lookup++)
        for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
            show(paths[i]);
    __wasi_filestat_t file, link;
    lookup = FOLLOW;
    need(get("file", 4), "path_filestat_get");
    file = last;
    need(get("link", 4), "path_filestat_get");
    link = last;
    note("link followed: is the file %d", memcmp(&file, &link, sizeof file) == 0);
    lookup = 0;
    need(get("link", 4), "path_filestat_get");
    note("link itself: has its inode %d", last.ino == file.ino);
    need(get("hard_link", 9), "path_filestat_get");
    file = last;
    need(get("hard_link_too", 13), "path_filestat_get");
    note("hard links: one inode %d, device %d", last.ino == file.ino, last.dev == file.dev);

    /* Chains of links, as long as they may be and longer. */
    for (int i = 1; i <= 45; i++) {
        char name[16], target[16];
        snprintf(name, sizeof name, "chain%d", i);
        snprintf(target, sizeof target, i == 1 ? "file" : "chain%d", i - 1);
        need(path_symlink(target, strlen(target), ROOT, name, strlen(name)), name);
    }
    lookup = FOLLOW;
    for (int i = 38; i <= 43; i++) {
        char name[16];
        snprintf(name, sizeof name, "chain%d", i);
        tell(get(name, strlen(name)), "%s", name);
    }
    for (int i = 1; i <= 45; i++) {
        char name[16];
        snprintf(name, sizeof name, "chain%d", i);
        need(path_unlink_file(ROOT, name, strlen(name)), name);
    }

    tell(path_filestat_get(NO_FD, 0, "", 0, &last), "wrong descriptor and path");
    int directory = opened("directory", DIRECTORY, READ_ONLY, 0);
    tell(path_filestat_get(directory, 0, "../file", 7, &last), "beside a directory opened");
    tell(path_filestat_get(directory, FOLLOW, "up", 2, &last), "link that leaves a directory opened");
    tell(path_filestat_get(directory, 0, "nested/deep", 11, &last), "deep in a directory opened");
    try_descriptors("path_filestat_get in", inside);
    lookup = 0;
    try_paths("path_filestat_get", get);
    lookup = FOLLOW;
    try_paths("path_filestat_get followed", get);
}
