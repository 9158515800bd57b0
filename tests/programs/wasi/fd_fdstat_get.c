/* fd_fdstat_get: types, flags and rights of descriptors, by what they were opened with. */
#include "check.h"

static __wasi_fdstat_t last;

static int get(int fd)
{
    return fd_fdstat_get(fd, &last);
}

static void show(const char *label, const char *path, int oflags, uint64_t rights, int fdflags)
{
    int fd = -1, error = open_at(ROOT, path, oflags, rights, fdflags, &fd);
    if (error) {
        tell(error, "%s: path_open", label);
        return;
    }
    need(get(fd), "fd_fdstat_get");
    note("%s: type %d, flags %s", label, last.fs_filetype, last.fs_flags == fdflags ? "as asked" : "others");
    note("reading, %s: %d", label, !!(last.fs_rights_base & __WASI_RIGHTS_FD_READ));
    note("writing, %s: %d", label, !!(last.fs_rights_base & __WASI_RIGHTS_FD_WRITE));
    note("rights of %s: %#llx, inheriting %#llx", label, (unsigned long long)last.fs_rights_base,
         (unsigned long long)last.fs_rights_inheriting);
    closed(fd);
}

int main(void)
{
    show("file", "file", 0, READ_WRITE, 0);
    show("read-only file", "file", 0, READ_ONLY, 0);
    show("write-only file", "file", 0, WRITE_ONLY, 0);
    show("file without rights", "file", 0, 0, 0);
    show("file with the right to read alone", "file", 0, __WASI_RIGHTS_FD_READ, 0);
    show("file through a link", "link", 0, READ_ONLY, 0);
    show("directory", "directory", DIRECTORY, READ_ONLY, 0);
    show("directory without rights", "directory", DIRECTORY, 0, 0);
    show("directory not asked for as one", "directory", 0, READ_ONLY, 0);
    show("directory through a link", "directory_link", DIRECTORY, READ_ONLY, 0);
    show("the same directory", ".", DIRECTORY, READ_ONLY, 0);
    for (int flags = 0; flags < 32; flags++) {
        char label[32];
        snprintf(label, sizeof label, "file with flags %d", flags);
        show(label, "file", 0, READ_WRITE, flags);
    }
    for (int flag = 1; flag < 32; flag *= 2) {
        char label[48];
        snprintf(label, sizeof label, "directory with flag %d", flag);
        show(label, "directory", DIRECTORY, READ_ONLY, flag);
        snprintf(label, sizeof label, "read-only file with flag %d", flag);
        show(label, "file", 0, READ_ONLY, flag);
    }
    need(get(ROOT), "fd_fdstat_get");
    note("preopened directory: type %d, flags %d", last.fs_filetype, last.fs_flags);
    note("rights of preopened directory: %#llx, inheriting %#llx", (unsigned long long)last.fs_rights_base,
         (unsigned long long)last.fs_rights_inheriting);
    for (int fd = 0; fd < 3; fd++) {
        need(get(fd), "fd_fdstat_get");
        note("standard stream %d: may read %d, may write %d", fd, !!(last.fs_rights_base & __WASI_RIGHTS_FD_READ),
             !!(last.fs_rights_base & __WASI_RIGHTS_FD_WRITE));
    }
    try_descriptors("fd_fdstat_get of", get);
}
