/* path_open: files and directories, every combination of flags, and every kind of path. */
#include "check.h"

static int lookup;

static int open_and_close(const char *path, size_t length)
{
    int fd = -1, error = path_open(ROOT, lookup, path, length, 0, READ_ONLY, READ_ONLY, 0, &fd);
    if (!error)
        closed(fd);
    return error;
}

static int create_and_remove(const char *path, size_t length)
{
    int fd = -1, error = path_open(ROOT, lookup, path, length, CREAT | EXCL, READ_WRITE, READ_WRITE, 0, &fd);
    if (!error) {
        closed(fd);
        need(path_unlink_file(ROOT, path, length), "path_unlink_file");
    }
    return error;
}

static int inside(int fd)
{
    int opened_inside = -1, error = open_at(fd, "a", 0, READ_ONLY, 0, &opened_inside);
    if (!error)
        closed(opened_inside);
    return error;
}

/* Opens, tells what it became and that descriptors are no negative numbers. */
static void show(const char *label, const char *path, int follow, int oflags, uint64_t rights, int fdflags)
{
    int fd = -1, error = path_open(ROOT, follow, path, strlen(path), oflags, rights, rights, fdflags, &fd);
    __wasi_fdstat_t stat;
    if (error) {
        tell(error, "%s", label);
        return;
    }
    need(fd_fdstat_get(fd, &stat), "fd_fdstat_get");
    note("%s: success(0), type %d%s", label, stat.fs_filetype, fd > ROOT ? "" : ", wrong number");
    closed(fd);
}

static void combinations(const char *path)
{
    static const struct {
        const char *label;
        uint64_t rights;
    } modes[] = {{"read-write", READ_WRITE}, {"read-only", READ_ONLY}, {"write-only", WRITE_ONLY}, {"no rights", 0}};
    __wasi_filestat_t stat;
    for (size_t mode = 0; mode < 4; mode++)
        for (int oflags = 0; oflags < 16; oflags++)
            for (int follow = 0; follow < 2; follow++) {
                char label[80];
                snprintf(label, sizeof label, "%s, %s, oflags %d%s", path, modes[mode].label, oflags, follow ? ", followed" : "");
                bool was_there = !path_filestat_get(ROOT, 0, path, strlen(path), &stat);
                show(label, path, follow, oflags, modes[mode].rights, 0);
                bool is_there = !path_filestat_get(ROOT, 0, path, strlen(path), &stat);
                if (!was_there && is_there) {
                    note("%s: made, type %d, %llu bytes", label, stat.filetype, (unsigned long long)stat.size);
                    need(path_unlink_file(ROOT, path, strlen(path)), "path_unlink_file");
                }
                /* What a dangling link leads to, and what is cut to nothing. */
                if (!path_unlink_file(ROOT, "nowhere", 7))
                    note("%s: made its target", label);
                if (!path_filestat_get(ROOT, FOLLOW, path, strlen(path), &stat) &&
                    stat.filetype == __WASI_FILETYPE_REGULAR_FILE && stat.size == 0) {
                    note("%s: cut to nothing", label);
                    make_file(path, "hello, world\n");
                }
            }
}

int main(void)
{
    static const char *const paths[] = {"file", "new", "directory", "link", "directory_link", "dangling", "loop", "leaving",
                                        "absolute", "directory/", "file/", "new/"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        combinations(paths[i]);
    show("file to append and to cut", "file", 0, TRUNC, READ_WRITE, APPEND);
    make_file("file", "hello, world\n");
    for (int flags = 0; flags < 32; flags++) {
        char label[48];
        snprintf(label, sizeof label, "file with flags %d", flags);
        show(label, "file", FOLLOW, 0, READ_WRITE, flags);
        snprintf(label, sizeof label, "directory with flags %d", flags);
        show(label, "directory", FOLLOW, DIRECTORY, READ_ONLY, flags);
    }
    tell(path_open(ROOT, 0, "file", 4, 0, READ_WRITE, 0, 0, &(int){0}), "no inheriting rights");
    tell(path_open(NO_FD, 0, "", 0, 15, 0, 0, 31, &(int){0}), "all wrong");

    show("fifo to be new", "fifo", 0, CREAT | EXCL, READ_ONLY, 0);

    int directory = opened("directory", DIRECTORY, READ_ONLY, 0), fd = -1;
    tell(open_at(directory, "a", 0, READ_ONLY, 0, &fd), "in a directory opened");
    tell(open_at(directory, "nested/deep", 0, READ_ONLY, 0, &fd), "deep in a directory opened");
    tell(open_at(directory, "../file", 0, READ_ONLY, 0, &fd), "beside a directory opened");
    tell(open_at(directory, "..", DIRECTORY, READ_ONLY, 0, &fd), "parent of a directory opened");
    tell(open_at(directory, "up", 0, READ_ONLY, 0, &fd), "link that leaves a directory opened");
    tell(open_at(directory, ".", DIRECTORY, READ_ONLY, 0, &fd), "the directory opened itself");

    int twice[2] = {opened("file", 0, READ_ONLY, 0), opened("file", 0, READ_ONLY, 0)};
    detail("two descriptors differ %d", twice[0] != twice[1]);
    bool distinct = true;
    int many[100];
    for (int i = 0; i < 100; i++) {
        many[i] = opened("file", 0, READ_ONLY, 0);
        for (int j = 0; j < i; j++)
            distinct &= many[j] != many[i];
    }
    detail("100 descriptors differ %d", distinct);
    for (int i = 0; i < 100; i++)
        closed(many[i]);

    need(path_create_directory(ROOT, "gone", 4), "path_create_directory");
    int gone = opened("gone", DIRECTORY, READ_ONLY, 0);
    need(path_remove_directory(ROOT, "gone", 4), "path_remove_directory");
    tell(open_at(gone, "new", CREAT, READ_WRITE, 0, &fd), "new file in a removed directory");
    tell(open_at(gone, ".", DIRECTORY, READ_ONLY, 0, &fd), "a removed directory itself");
    try_descriptors("path_open in", inside);
    try_paths("path_open", open_and_close);
    try_paths("path_open new", create_and_remove);
    lookup = FOLLOW;
    try_paths("path_open followed", open_and_close);
    try_paths("path_open new followed", create_and_remove);
}
