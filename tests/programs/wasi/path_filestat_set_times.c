/* path_filestat_set_times: either time, to a value or to now, of files, directories and links; every kind of path. */
#include "check.h"

enum { ATIM = 1, ATIM_NOW = 2, MTIM = 4, MTIM_NOW = 8 };

static const uint64_t day = UINT64_C(86400000000000);
static int lookup;

static int both(const char *path, size_t length)
{
    return path_filestat_set_times(ROOT, lookup, path, length, day, 2 * day, ATIM | MTIM);
}

static int inside(int fd)
{
    return path_filestat_set_times(fd, 0, "a", 1, day, 2 * day, ATIM | MTIM);
}

/* Times after 2017 are those of this run. */
static unsigned long long days(uint64_t time)
{
    return time > UINT64_C(1500000000000000000) ? 0 : time / day;
}

static void set(const char *label, const char *path, int follow, uint64_t accessed, uint64_t modified, int flags)
{
    __wasi_filestat_t stat;
    size_t length = strlen(path);
    tell(path_filestat_set_times(ROOT, follow, path, length, accessed * day, modified * day, flags), "%s", label);
    for (int of_target = 0; of_target < 2; of_target++)
        if (!path_filestat_get(ROOT, of_target, path, length, &stat))
            note("%s%s: accessed on day %llu, modified on day %llu", label, of_target ? ", target" : "",
                 of_target ? days(stat.atim) : stat.filetype == __WASI_FILETYPE_SYMBOLIC_LINK ? 0 : days(stat.atim),
                 days(stat.mtim));
}

int main(void)
{
    set("both", "file", 0, 1, 2, ATIM | MTIM);
    set("access", "file", 0, 3, 4, ATIM);
    set("modification", "file", 0, 5, 6, MTIM);
    set("neither", "file", 0, 7, 8, 0);
    set("access now", "file", 0, 7, 8, ATIM_NOW);
    set("modification now", "file", 0, 7, 8, MTIM_NOW);
    set("value and now of access", "file", 0, 9, 9, ATIM | ATIM_NOW);
    set("value and now of modification", "file", 0, 9, 9, MTIM | MTIM_NOW);
    set("directory", "directory", 0, 1, 2, ATIM | MTIM);
    set("directory with a slash", "directory/", 0, 3, 4, ATIM | MTIM);
    set("link itself", "link", 0, 9, 10, ATIM | MTIM);
    set("link followed", "link", FOLLOW, 11, 12, ATIM | MTIM);
    set("directory link followed", "directory_link", FOLLOW, 11, 12, ATIM | MTIM);
    set("dangling link itself", "dangling", 0, 9, 10, ATIM | MTIM);
    set("dangling link followed", "dangling", FOLLOW, 9, 10, ATIM | MTIM);
    set("leaving link itself", "leaving", 0, 9, 10, ATIM | MTIM);
    set("leaving link followed", "leaving", FOLLOW, 9, 10, ATIM | MTIM);
    set("fifo", "fifo", 0, 9, 10, ATIM | MTIM);
    set("missing", "missing", 0, 9, 10, ATIM | MTIM);
    tell(path_filestat_set_times(ROOT, 0, "missing", 7, 0, 0, ATIM | ATIM_NOW), "missing file, wrong flags");
    tell(path_filestat_set_times(NO_FD, 0, "missing", 7, 0, 0, ATIM | ATIM_NOW), "wrong descriptor and flags");
    tell(path_filestat_set_times(ROOT, 0, "missing", 7, 0, 0, 0), "missing file, no flags");
    try_descriptors("path_filestat_set_times in", inside);
    try_paths("path_filestat_set_times", both);
    lookup = FOLLOW;
    try_paths("path_filestat_set_times followed", both);
}
