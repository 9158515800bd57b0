/* fd_readdir: what a directory holds, buffers of all sizes, going on at cookies, and changes between calls. */
#include "check.h"

static uint8_t whole[8192], part[8192];
static size_t whole_bytes;

static int list(int fd)
{
    size_t used;
    return fd_readdir(fd, part, sizeof part, 0, &used);
}

static __wasi_dirent_t entry_at(const uint8_t *at)
{
    __wasi_dirent_t entry;
    memcpy(&entry, at, sizeof entry);
    return entry;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* All entries in alphabetical order, however small the buffer; returns how many there are. */
static size_t show(const char *label, int fd, size_t size, bool quietly)
{
    char *lines[64];
    size_t count = 0, used = size, calls = 0;
    uint64_t cookie = 0;
    while (used == size && calls++ < 1000) {
        int error = fd_readdir(fd, part, size, cookie, &used);
        if (error) {
            tell(error, "%s: fd_readdir", label);
            return 0;
        }
        size_t at = 0;
        for (; at + sizeof(__wasi_dirent_t) <= used && count < 64;) {
            __wasi_dirent_t entry = entry_at(part + at);
            const uint8_t *name = part + at + sizeof entry;
            if (at + sizeof entry + entry.d_namlen > used)
                break;
            lines[count] = malloc(400);
            snprintf(lines[count++], 400, "%s: type %d", quoted(name, entry.d_namlen), entry.d_type);
            cookie = entry.d_next;
            at += sizeof entry + entry.d_namlen;
        }
        if (at == 0 && used)
            break; /* not one entry fits */
    }
    qsort(lines, count, sizeof *lines, by_text);
    for (size_t i = 0; i < count; i++) {
        if (!quietly)
            note("%s: %s", label, lines[i]);
        free(lines[i]);
    }
    note("%s: %zu entries", label, count);
    return count;
}

int main(void)
{
    size_t used;
    int directory = opened("directory", DIRECTORY, READ_ONLY, 0), empty = opened("empty_directory", DIRECTORY, READ_ONLY, 0);
    show("directory", directory, sizeof part, false);
    show("empty directory", empty, sizeof part, false);
    show("preopened directory", ROOT, sizeof part, false);

    need(fd_readdir(directory, whole, sizeof whole, 0, &whole_bytes), "fd_readdir");
    size_t second = 24 + entry_at(whole).d_namlen;
    note("first entry: \"%s\"", quoted(whole + 24, entry_at(whole).d_namlen));
    note("second entry: \"%s\"", quoted(whole + second + 24, entry_at(whole + second).d_namlen));
    for (size_t size = 0; size <= whole_bytes + 2; size++) {
        memset(part, '?', sizeof part);
        int error = fd_readdir(directory, part, size, 0, &used);
        tell_number(error, used, "buffer of %zu bytes", size);
        if (error)
            continue;
        bool untouched = true;
        for (size_t at = size; at < size + 64; at++)
            untouched &= part[at] == '?';
        note("buffer of %zu bytes: same start %d, nothing behind %d", size, memcmp(part, whole, used) == 0, untouched);
    }
    static const size_t sizes[] = {24, 25, 26, 30, 31, 32, 33, 40, 48, 64, 100, 200};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char label[32];
        snprintf(label, sizeof label, "in steps of %zu bytes", sizes[i]);
        show(label, directory, sizes[i], true);
    }

    /* Each cookie leads to the entries behind it. */
    for (size_t at = 0, index = 1; at < whole_bytes; index++) {
        __wasi_dirent_t entry = entry_at(whole + at);
        at += sizeof entry + entry.d_namlen;
        tell_number(fd_readdir(directory, part, sizeof part, entry.d_next, &used), used == whole_bytes - at,
                    "the rest behind entry %zu", index);
        detail("same %d", memcmp(part, whole + at, used) == 0);
    }
    tell_number(fd_readdir(directory, part, sizeof part, 1000000, &used), used, "cookie 1000000");
    tell_number(fd_readdir(directory, part, sizeof part, UINT32_MAX, &used), used, "cookie 2^32-1");
    tell_number(fd_readdir(directory, part, sizeof part, UINT64_C(1) << 32, &used), used, "cookie 2^32");
    tell_number(fd_readdir(directory, part, sizeof part, INT64_MAX, &used), used, "cookie 2^63-1");
    tell_number(fd_readdir(directory, part, sizeof part, UINT64_MAX, &used), used, "cookie 2^64-1");

    /* Names that are no UTF-8 can be on the host, but not in preview 1. */
    int bytes = opened("bytes", DIRECTORY, READ_ONLY, 0);
    show("directory with a name that is no text", bytes, sizeof part, false);

    /* Entries that come and go while it is read. */
    need(path_create_directory(ROOT, "made", 4), "path_create_directory");
    int made = opened("made", DIRECTORY, READ_ONLY, 0);
    show("new directory", made, sizeof part, false);
    for (char name = 'a'; name <= 'f'; name++) {
        int fd;
        need(open_at(made, (char[]){name, 0}, CREAT, READ_WRITE, 0, &fd), "path_open");
        closed(fd);
    }
    show("with six files", made, sizeof part, false);
    show("in steps of 60 bytes", made, 60, true);
    need(path_unlink_file(made, "c", 1), "path_unlink_file");
    need(path_rename(made, "d", 1, made, "renamed", 7), "path_rename");
    need(path_symlink("missing", 7, made, "link", 4), "path_symlink");
    show("after changes", made, sizeof part, false);
    need(fd_readdir(made, whole, sizeof whole, 0, &whole_bytes), "fd_readdir");
    static const char *const names[] = {"a", "b", "e", "f", "renamed", "link"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        need(path_unlink_file(made, names[i], strlen(names[i])), names[i]);
    tell_number(fd_readdir(made, part, sizeof part, entry_at(whole).d_next, &used), used, "emptied, from the first cookie");
    show("emptied", made, sizeof part, false);
    need(path_remove_directory(ROOT, "made", 4), "path_remove_directory");
    tell_number(fd_readdir(made, part, sizeof part, 0, &used), used, "removed directory");

    int same = opened("directory", DIRECTORY, READ_ONLY, 0);
    show("second descriptor", same, 64, true);
    show("first descriptor again", directory, sizeof part, true);
    int no_rights = opened("directory", DIRECTORY, 0, 0);
    tell(list(no_rights), "without rights");
    try_descriptors("fd_readdir of", list);
}
