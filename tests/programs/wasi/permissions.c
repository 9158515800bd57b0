/* What modes of files and directories refuse, for users who are not root. The fixture has locked/ (no access), unlisted/
 * (no reading), fixed/ (no writing), and in each of them a file; and files locked_file, read_only and write_only. */
#include "check.h"

static int create(const char *path)
{
    int fd = -1, error = open_at(ROOT, path, CREAT | EXCL, READ_WRITE, 0, &fd);
    if (!error)
        fd_close(fd);
    return error;
}

static void files(const char *path)
{
    static const struct {
        const char *label;
        uint64_t rights;
        int oflags;
    } modes[] = {{"read", READ_ONLY, 0}, {"write", WRITE_ONLY, 0}, {"both", READ_WRITE, 0}, {"neither", 0, 0},
                 {"truncate", WRITE_ONLY, TRUNC}, {"truncate a reader", READ_ONLY, TRUNC}, {"create", READ_WRITE, CREAT}};
    __wasi_filestat_t stat;
    size_t length = strlen(path);
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        int fd = -1, error = open_at(ROOT, path, modes[i].oflags, modes[i].rights, 0, &fd);
        tell(error, "%s, path_open to %s", path, modes[i].label);
        if (!error)
            fd_close(fd);
    }
    tell(path_filestat_get(ROOT, 0, path, length, &stat), "%s, path_filestat_get", path);
    tell(path_filestat_set_times(ROOT, 0, path, length, 1, 1, 5), "%s, path_filestat_set_times", path);
    tell(path_link(ROOT, 0, path, length, ROOT, "linked", 6), "%s, path_link", path);
    path_unlink_file(ROOT, "linked", 6);
}

static void directories(const char *path)
{
    char inside[64], new[64];
    size_t used;
    snprintf(inside, sizeof inside, "%s/file", path);
    snprintf(new, sizeof new, "%s/new", path);
    int fd = -1, error = open_at(ROOT, path, DIRECTORY, READ_ONLY, 0, &fd);
    tell(error, "%s, path_open", path);
    if (!error) {
        char buffer[256];
        tell(fd_readdir(fd, buffer, sizeof buffer, 0, &used), "%s, fd_readdir", path);
        fd_close(fd);
    }
    tell(create(new), "%s, path_open of a new file in it", path);
    path_unlink_file(ROOT, new, strlen(new));
    tell(path_create_directory(ROOT, new, strlen(new)), "%s, path_create_directory in it", path);
    path_remove_directory(ROOT, new, strlen(new));
    tell(path_symlink("x", 1, ROOT, new, strlen(new)), "%s, path_symlink in it", path);
    path_unlink_file(ROOT, new, strlen(new));
    tell(path_link(ROOT, 0, "file", 4, ROOT, new, strlen(new)), "%s, path_link in it", path);
    path_unlink_file(ROOT, new, strlen(new));
    make_file("moved", "moved");
    tell(path_rename(ROOT, "moved", 5, ROOT, new, strlen(new)), "%s, path_rename to it", path);
    tell(path_rename(ROOT, inside, strlen(inside), ROOT, "moved", 5), "%s, path_rename from it", path);
    path_rename(ROOT, "moved", 5, ROOT, inside, strlen(inside));
    tell(path_unlink_file(ROOT, new, strlen(new)), "%s, path_unlink_file in it", path);
    tell(path_remove_directory(ROOT, path, strlen(path)), "%s, path_remove_directory", path);
}

int main(void)
{
    files("locked_file");
    files("read_only");
    files("write_only");
    directories("locked");
    directories("unlisted");
    directories("fixed");
}
