/* fd_filestat_set_times: either time, to a value or to now; flags that exclude each other; any descriptor. */
#include "check.h"

enum { ATIM = 1, ATIM_NOW = 2, MTIM = 4, MTIM_NOW = 8 };

static const uint64_t day = UINT64_C(86400000000000);

static int both(int fd)
{
    return fd_filestat_set_times(fd, day, 2 * day, ATIM | MTIM);
}

static int nothing(int fd)
{
    return fd_filestat_set_times(fd, day, 2 * day, 0);
}

/* Times after 2017 are those of this run. */
static const char *time_text(uint64_t time)
{
    static char texts[2][32];
    static int turn;
    char *text = texts[turn ^= 1];
    if (time > UINT64_C(1500000000000000000) && time < UINT64_C(4000000000000000000))
        return "now";
    snprintf(text, sizeof texts[0], "%llu", (unsigned long long)time);
    return text;
}

static void set(const char *label, int fd, uint64_t accessed, uint64_t modified, int flags)
{
    __wasi_filestat_t stat;
    tell(fd_filestat_set_times(fd, accessed, modified, flags), "%s", label);
    need(fd_filestat_get(fd, &stat), "fd_filestat_get");
    note("%s: accessed %s, modified %s", label, time_text(stat.atim), time_text(stat.mtim));
}

int main(void)
{
    int fd = opened("file", 0, READ_WRITE, 0);
    set("both", fd, day, 2 * day, ATIM | MTIM);
    set("access", fd, 3 * day, 4 * day, ATIM);
    set("modification", fd, 5 * day, 6 * day, MTIM);
    set("neither", fd, 7 * day, 8 * day, 0);
    set("access now", fd, 7 * day, 8 * day, ATIM_NOW);
    set("modification now", fd, 7 * day, 8 * day, MTIM_NOW);
    set("access back", fd, 9 * day, 0, ATIM | MTIM_NOW);
    set("both now", fd, 7 * day, 8 * day, ATIM_NOW | MTIM_NOW);
    set("to the nanosecond", fd, UINT64_C(1234567890123456789), UINT64_C(987654321987654321), ATIM | MTIM);
    set("zero", fd, 0, 0, ATIM | MTIM);
    set("one", fd, 1, 999999999, ATIM | MTIM);
    set("value and now of access", fd, day, day, ATIM | ATIM_NOW);
    set("value and now of modification", fd, day, day, MTIM | MTIM_NOW);
    set("all flags", fd, day, day, ATIM | ATIM_NOW | MTIM | MTIM_NOW);
    set("year 2100", fd, 47482 * day, 47482 * day, ATIM | MTIM);
    set("2^63-1", fd, INT64_MAX, INT64_MAX, ATIM | MTIM);
    set("back", fd, day, day, ATIM | MTIM);
    tell(fd_filestat_set_times(NO_FD, 0, 0, ATIM | ATIM_NOW), "wrong descriptor and flags");
    int directory = opened("directory", DIRECTORY, READ_ONLY, 0);
    set("directory", directory, day, 2 * day, ATIM | MTIM);
    set("directory now", directory, day, 2 * day, ATIM_NOW | MTIM_NOW);
    set("preopened directory", ROOT, 3 * day, 4 * day, ATIM | MTIM);
    int read_only = opened("empty", 0, READ_ONLY, 0);
    set("read-only file", read_only, 3 * day, 4 * day, ATIM | MTIM);
    try_descriptors("both times of", both);
    try_descriptors("no time of", nothing);
}
