/* What the programs here share: the raw functions of WASI preview 1, a line of output for each check, and the descriptors
 * and paths that every function must judge. tests/conformance.rs makes the two directories that descriptors 3 and 4 are. */
#ifndef CHECK_H
#define CHECK_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wasi/api.h>

/* Imported anew: wasi/api.h takes paths that end at a NUL, and no bits that no flag has. */
#define IMPORT(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(#name))) int name

IMPORT(fd_advise)(int fd, uint64_t offset, uint64_t length, int advice);
IMPORT(fd_allocate)(int fd, uint64_t offset, uint64_t length);
IMPORT(fd_close)(int fd);
IMPORT(fd_datasync)(int fd);
IMPORT(fd_fdstat_get)(int fd, __wasi_fdstat_t *result);
IMPORT(fd_fdstat_set_flags)(int fd, int flags);
IMPORT(fd_fdstat_set_rights)(int fd, uint64_t base, uint64_t inheriting);
IMPORT(fd_filestat_get)(int fd, __wasi_filestat_t *result);
IMPORT(fd_filestat_set_size)(int fd, uint64_t size);
IMPORT(fd_filestat_set_times)(int fd, uint64_t accessed, uint64_t modified, int flags);
IMPORT(fd_pread)(int fd, const __wasi_iovec_t *vectors, size_t count, uint64_t offset, size_t *result);
IMPORT(fd_prestat_dir_name)(int fd, char *buffer, size_t length);
IMPORT(fd_prestat_get)(int fd, __wasi_prestat_t *result);
IMPORT(fd_pwrite)(int fd, const __wasi_ciovec_t *vectors, size_t count, uint64_t offset, size_t *result);
IMPORT(fd_read)(int fd, const __wasi_iovec_t *vectors, size_t count, size_t *result);
IMPORT(fd_readdir)(int fd, void *buffer, size_t length, uint64_t cookie, size_t *result);
IMPORT(fd_renumber)(int from, int to);
IMPORT(fd_seek)(int fd, int64_t offset, int whence, uint64_t *result);
IMPORT(fd_sync)(int fd);
IMPORT(fd_tell)(int fd, uint64_t *result);
IMPORT(fd_write)(int fd, const __wasi_ciovec_t *vectors, size_t count, size_t *result);
IMPORT(path_create_directory)(int fd, const char *path, size_t length);
IMPORT(path_filestat_get)(int fd, int lookup, const char *path, size_t length, __wasi_filestat_t *result);
IMPORT(path_filestat_set_times)
(int fd, int lookup, const char *path, size_t length, uint64_t accessed, uint64_t modified, int flags);
IMPORT(path_link)
(int old_fd, int lookup, const char *old_path, size_t old_length, int new_fd, const char *new_path, size_t new_length);
IMPORT(path_open)
(int fd, int lookup, const char *path, size_t length, int oflags, uint64_t base, uint64_t inheriting, int fdflags,
 int *result);
IMPORT(path_readlink)(int fd, const char *path, size_t length, char *buffer, size_t buffer_length, size_t *result);
IMPORT(path_remove_directory)(int fd, const char *path, size_t length);
IMPORT(path_rename)
(int old_fd, const char *old_path, size_t old_length, int new_fd, const char *new_path, size_t new_length);
IMPORT(path_symlink)(const char *target, size_t target_length, int fd, const char *path, size_t length);
IMPORT(path_unlink_file)(int fd, const char *path, size_t length);
IMPORT(poll_oneoff)(const __wasi_subscription_t *in, __wasi_event_t *out, size_t count, size_t *result);
IMPORT(sock_accept)(int fd, int flags, int *result);
IMPORT(sock_recv)(int fd, const __wasi_iovec_t *vectors, size_t count, int flags, size_t *result, uint16_t *result_flags);
IMPORT(sock_send)(int fd, const __wasi_ciovec_t *vectors, size_t count, int flags, size_t *result);
IMPORT(sock_shutdown)(int fd, int how);

enum { ROOT = 3, OUTSIDE = 4, NO_FD = 99 };
enum { FOLLOW = 1 };
enum { CREAT = 1, DIRECTORY = 2, EXCL = 4, TRUNC = 8 };
enum { APPEND = 1, DSYNC = 2, NONBLOCK = 4, RSYNC = 8, SYNC = 16 };

/* All rights but those of sockets; a directory can be opened with READ_ONLY alone. */
#define READ_WRITE ((UINT64_C(1) << 28) - 1)
#define READ_ONLY (READ_WRITE & ~(uint64_t)__WASI_RIGHTS_FD_WRITE)
#define WRITE_ONLY (READ_WRITE & ~(uint64_t)__WASI_RIGHTS_FD_READ)

/* --- Output ------------------------------------------------------------------------------------------------------- */

/* Where lines go; a program that renumbers standard output changes it. */
static int output = 1;

static inline void put(const char *text, size_t length)
{
    while (length) {
        __wasi_ciovec_t vector = {(const uint8_t *)text, length};
        size_t written = 0;
        if (fd_write(output, &vector, 1, &written) || written == 0)
            exit(90);
        text += written;
        length -= written;
    }
}

static inline const char *errno_name(int error)
{
    static const char *const names[] = {
        "success",     "toobig",      "acces",     "addrinuse",   "addrnotavail", "afnosupport", "again",
        "already",     "badf",        "badmsg",    "busy",        "canceled",     "child",       "connaborted",
        "connrefused", "connreset",   "deadlk",    "destaddrreq", "dom",          "dquot",       "exist",
        "fault",       "fbig",        "hostunreach", "idrm",      "ilseq",        "inprogress",  "intr",
        "inval",       "io",          "isconn",    "isdir",       "loop",         "mfile",       "mlink",
        "msgsize",     "multihop",    "nametoolong", "netdown",   "netreset",     "netunreach",  "nfile",
        "nobufs",      "nodev",       "noent",     "noexec",      "nolck",        "nolink",      "nomem",
        "nomsg",       "noprotoopt",  "nospc",     "nosys",       "notconn",      "notdir",      "notempty",
        "notrecoverable", "notsock",  "notsup",    "notty",       "nxio",         "overflow",    "ownerdead",
        "perm",        "pipe",        "proto",     "protonosupport", "prototype", "range",       "rofs",
        "spipe",       "srch",        "stale",     "timedout",    "txtbsy",       "xdev",        "notcapable",
    };
    return error >= 0 && error < (int)(sizeof names / sizeof *names) ? names[error] : "?";
}

/* One line, which begins with a label and a colon. */
__attribute__((format(printf, 1, 2))) static inline void note(const char *format, ...)
{
    char line[1536];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    put(line, strlen(line));
    put("\n", 1);
}

/* The label of the last check. */
static char last_label[512];

/* The line "label: errno(number)". */
__attribute__((format(printf, 2, 3))) static inline void tell(int error, const char *label, ...)
{
    va_list arguments;
    va_start(arguments, label);
    vsnprintf(last_label, sizeof last_label, label, arguments);
    va_end(arguments);
    note("%s: %s(%d)", last_label, errno_name(error), error);
}

/* The same with the number that a call resulted in, if it did. */
__attribute__((format(printf, 3, 4))) static inline void tell_number(int error, uint64_t number, const char *label, ...)
{
    va_list arguments;
    va_start(arguments, label);
    vsnprintf(last_label, sizeof last_label, label, arguments);
    va_end(arguments);
    if (error)
        note("%s: %s(%d)", last_label, errno_name(error), error);
    else
        note("%s: success(0) %llu", last_label, (unsigned long long)number);
}

/* What else is known of the last check: a line with its label. */
__attribute__((format(printf, 1, 2))) static inline void detail(const char *format, ...)
{
    char text[1000];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    note("%s: %s", last_label, text);
}

/* Ends the program if what a check stands on does not work. */
static inline void need(int error, const char *what)
{
    if (error) {
        tell(error, "needed: %s", what);
        exit(91);
    }
}

/* Bytes as one printable word: "text", \xNN, and (N x 'c') for long runs. */
static inline const char *quoted(const void *bytes, size_t length)
{
    static char text[900];
    const uint8_t *from = bytes;
    size_t used = 0;
    for (size_t at = 0; at < length && used < sizeof text - 40;) {
        size_t run = 1;
        while (at + run < length && from[at + run] == from[at])
            run++;
        bool printable = from[at] >= ' ' && from[at] < 127 && from[at] != '\\';
        size_t repeat = run > 8 ? 1 : run;
        if (run > 8)
            used += (size_t)snprintf(text + used, sizeof text - used, "(%zu x ", run);
        for (size_t i = 0; i < repeat; i++)
            used += (size_t)snprintf(text + used, sizeof text - used, printable ? "%c" : "\\x%02x", from[at]);
        if (run > 8)
            text[used++] = ')';
        at += run;
    }
    text[used] = 0;
    return text;
}

/* --- Files -------------------------------------------------------------------------------------------------------- */

static inline int open_at(int directory, const char *path, int oflags, uint64_t rights, int fdflags, int *fd)
{
    return path_open(directory, FOLLOW, path, strlen(path), oflags, rights, rights, fdflags, fd);
}

/* A descriptor that must come to be. */
static inline int opened(const char *path, int oflags, uint64_t rights, int fdflags)
{
    int fd = -1;
    need(open_at(ROOT, path, oflags, rights, fdflags, &fd), path);
    return fd;
}

static inline void closed(int fd)
{
    need(fd_close(fd), "fd_close");
}

static inline int write_text(int fd, const char *text, size_t *written)
{
    __wasi_ciovec_t vector = {(const uint8_t *)text, strlen(text)};
    return fd_write(fd, &vector, 1, written);
}

static inline int pwrite_text(int fd, const char *text, uint64_t offset, size_t *written)
{
    __wasi_ciovec_t vector = {(const uint8_t *)text, strlen(text)};
    return fd_pwrite(fd, &vector, 1, offset, written);
}

static inline int read_bytes(int fd, void *buffer, size_t length, size_t *got)
{
    __wasi_iovec_t vector = {buffer, length};
    return fd_read(fd, &vector, 1, got);
}

static inline int pread_bytes(int fd, void *buffer, size_t length, uint64_t offset, size_t *got)
{
    __wasi_iovec_t vector = {buffer, length};
    return fd_pread(fd, &vector, 1, offset, got);
}

static inline uint64_t position(int fd)
{
    uint64_t at = 0;
    need(fd_tell(fd, &at), "fd_tell");
    return at;
}

static inline uint64_t size_of(int fd)
{
    __wasi_filestat_t stat;
    need(fd_filestat_get(fd, &stat), "fd_filestat_get");
    return stat.size;
}

/* Makes a file, or replaces what is in it. */
static inline void make_file(const char *path, const char *text)
{
    int fd = opened(path, CREAT | TRUNC, READ_WRITE, 0);
    size_t written = 0;
    need(write_text(fd, text, &written), path);
    closed(fd);
}

/* The line "label: SIZE bytes CONTENTS". */
static inline void show_file(const char *label, const char *path)
{
    static uint8_t contents[70000];
    int fd = -1;
    int error = open_at(ROOT, path, 0, READ_ONLY, 0, &fd);
    if (error) {
        tell(error, "%s: %s", label, path);
        return;
    }
    size_t used = 0, got;
    while (used < sizeof contents && !read_bytes(fd, contents + used, sizeof contents - used, &got) && got)
        used += got;
    note("%s: %llu bytes \"%s\"", label, (unsigned long long)size_of(fd), quoted(contents, used));
    closed(fd);
}

/* --- Descriptors and paths for every function --------------------------------------------------------------------- */

/* Calls a function with descriptors of all kinds. */
static inline void try_descriptors(const char *function, int (*call)(int fd))
{
    int gone = opened("file", 0, READ_ONLY, 0);
    closed(gone);
    tell(call(gone), "%s closed descriptor", function);
    tell(call(NO_FD), "%s number never opened", function);
    tell(call(-1), "%s number -1", function);
    tell(call(INT32_MIN), "%s number 2^31", function);
    tell(call(0), "%s standard input", function);
    tell(call(2), "%s standard error", function);
    tell(call(ROOT), "%s preopened directory", function);

    static const struct {
        const char *label, *path;
        int oflags;
        uint64_t rights;
    } kinds[] = {
        {"directory", "directory", DIRECTORY, READ_ONLY},
        {"file", "kinds", CREAT, READ_WRITE},
        {"read-only file", "kinds", 0, READ_ONLY},
        {"write-only file", "kinds", 0, WRITE_ONLY},
        {"file without rights", "kinds", 0, 0},
    };
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        int fd = opened(kinds[i].path, kinds[i].oflags, kinds[i].rights, 0);
        tell(call(fd), "%s %s", function, kinds[i].label);
        fd_close(fd);
    }
}

/* What functions of paths may remove or replace. */
static const char *const precious[] = {
    "file",         "link",     "link_to_link", "directory_link",    "directory/a",     "directory/up",
    "dangling",     "loop",     "loop_a",       "leaving",           "leaving_missing", "leaving_directory",
    "out_and_back", "absolute", "absolute_host", "absolute_missing", "absolute_directory", "directory/leaving",
};

/* Makes hard links of it in a directory of their own, or puts back from there what is no more. */
static inline void keep_or_restore(bool restore)
{
    if (!restore && path_create_directory(ROOT, "kept", 4))
        return;
    for (size_t i = 0; i < sizeof precious / sizeof *precious; i++) {
        char kept[16];
        snprintf(kept, sizeof kept, "kept/%zu", i);
        const char *from = restore ? kept : precious[i], *to = restore ? precious[i] : kept;
        int error = path_link(ROOT, 0, from, strlen(from), ROOT, to, strlen(to));
        if (!restore && error != __WASI_ERRNO_NOENT)
            need(error, from);
    }
}

/* Calls a function with paths of all kinds. It undoes what it did; what it removed or replaced is put back here. */
static inline void try_paths(const char *function, int (*call)(const char *path, size_t length))
{
#define PATH(path) {path, sizeof path - 1}
    static const struct {
        const char *path;
        size_t length;
    } paths[] = {
        PATH(""), PATH("."), PATH("./"), PATH("./."), PATH(".."), PATH("../"), PATH("../."), PATH("/"), PATH("//"),
        PATH("..."),
        PATH("file/"), PATH("file//"), PATH("file/."), PATH("file/.."), PATH("file/../file"), PATH("file/x"),
        PATH("./file"), PATH(".//file"), PATH("directory/../file"), PATH("directory/nested/../../file"),
        PATH("missing/"), PATH("missing/."), PATH("missing/.."), PATH("missing/x"), PATH("missing/../file"),
        PATH("directory/."), PATH("directory/.."), PATH("directory/"), PATH("directory/nested/.."),
        PATH("directory/missing"), PATH("directory/missing/"), PATH("directory//a"), PATH("directory/./a"),
        PATH("directory/a/"), PATH("directory/a/b"),
        PATH("../sandbox"), PATH("../sandbox/file"), PATH("../outside/secret"), PATH("../missing"), PATH("../../"),
        PATH("directory/../.."), PATH("directory/../../sandbox/file"), PATH("directory/../../outside/secret"),
        PATH("/file"), PATH("/directory/a"), PATH("/etc/passwd"), PATH("//file"), PATH("/."), PATH("/.."),
        PATH("\0"), PATH("file\0"), PATH("file\0x"), PATH("missing\0x"), PATH("\0file"), PATH("directory\0/a"),
        PATH("\xff"), PATH("file\xff"), PATH("directory/\xc3"), PATH("\xc0\xaf"), PATH("\xed\xa0\x80"),
        PATH("\xf4\x90\x80\x80"), PATH("n\xc3\xa4me"), PATH("back\\slash"), PATH("C:"), PATH("name\n"), PATH(" "),
        PATH("fifo/"), PATH("fifo/x"),
        PATH("link/"), PATH("link/."), PATH("link/x"),
        PATH("directory_link/"), PATH("directory_link/."), PATH("directory_link/.."), PATH("directory_link/a"),
        PATH("directory_link/../file"), PATH("directory_link/missing"), PATH("directory_link/nested/../a"),
        PATH("dangling/"), PATH("dangling/x"), PATH("dangling/.."), PATH("loop/"), PATH("loop/x"), PATH("loop_a/x"),
        PATH("leaving/"), PATH("leaving/x"), PATH("leaving_directory/"), PATH("leaving_directory/secret"),
        PATH("leaving_directory/missing"), PATH("leaving_directory/../sandbox/file"), PATH("out_and_back"),
        PATH("absolute/"), PATH("absolute_directory/a"), PATH("directory/up"), PATH("directory/up/"),
        PATH("directory/leaving"), PATH("directory/leaving/"), PATH("directory_link/leaving"),
        PATH("dangling"), PATH("loop"), PATH("loop_a"), PATH("leaving"), PATH("leaving_missing"),
        PATH("leaving_directory"), PATH("absolute"), PATH("absolute_missing"), PATH("absolute_host"),
        PATH("absolute_directory"), PATH("link"), PATH("directory_link"), PATH("link_to_link"),
    };
#undef PATH
    keep_or_restore(false);
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        tell(call(paths[i].path, paths[i].length), "%s \"%s\"", function, quoted(paths[i].path, paths[i].length));
        keep_or_restore(true);
    }

    static char text[65536];
    memset(text, 'n', sizeof text);
    static const size_t names[] = {254, 255, 256, 4095, 4096, 5000, 65536};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        tell(call(text, names[i]), "%s name of %zu bytes", function, names[i]);
    static const size_t lengths[] = {4092, 4094, 4096, 5000, 65536};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        for (size_t at = 0; at < lengths[i]; at++)
            text[at] = "./"[at % 2];
        memcpy(text + lengths[i] - 4, "file", 4);
        tell(call(text, lengths[i]), "%s%s path of %zu bytes", function, lengths[i] < 4096 ? "" : " too long a", lengths[i]);
        keep_or_restore(true);
    }
    for (size_t at = 0; at < sizeof text; at++)
        text[at] = "a/"[at % 2];
    tell(call(text, 2001), "%s path of 1001 missing names", function);
    for (size_t at = 0; at < 3999; at++)
        text[at] = "../"[at % 3];
    tell(call(text, 3999), "%s path of 1333 parents", function);
}

#endif
