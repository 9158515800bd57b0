/* Carries out the operations that standard input lists, one a line, and prints what came of each: for the property test of
 * tests/preview1/sequence.rs, which knows their arguments. Descriptors are numbers of slots, of which 0 is ROOT. */
#include "check.h"

enum { SLOTS = 8, WORDS = 8 };

static int slots[SLOTS] = {ROOT, NO_FD, NO_FD, NO_FD, NO_FD, NO_FD, NO_FD, NO_FD};
static uint8_t buffer[1 << 17];
static size_t count;
static unsigned line_number;

/* The words of a line: the operation and its arguments. */
static const char *words[WORDS];

static int fd_at(int word)
{
    return slots[atoi(words[word]) % SLOTS];
}

static uint64_t number(int word)
{
    return strtoull(words[word], NULL, 0);
}

static size_t length(int word)
{
    return strlen(words[word]);
}

static bool is(const char *operation)
{
    return strcmp(words[0], operation) == 0;
}

static void finish(int error)
{
    tell(error, "%u %s", line_number, words[0]);
}

static void finish_with(int error, uint64_t result)
{
    tell_number(error, result, "%u %s", line_number, words[0]);
}

/* The first bytes of the buffer, and a sum of all. */
static void show_bytes(void)
{
    uint32_t sum = 1;
    for (size_t i = 0; i < count; i++)
        sum = sum * 31 + buffer[i];
    note("%u %s: \"%s\", sum %08x", line_number, words[0], quoted(buffer, count < 100 ? count : 100), (unsigned)sum);
}

/* Writes that many bytes. */
static int fill(int fd, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        buffer[i] = (uint8_t)(i * 7 + line_number);
    __wasi_ciovec_t vector = {buffer, bytes};
    return fd_write(fd, &vector, 1, &count);
}

static void show_stat(int error, const __wasi_filestat_t *stat)
{
    finish(error);
    if (!error)
        note("%u %s: type %d, %llu links, %llu bytes", line_number, words[0], stat->filetype,
             (unsigned long long)stat->nlink,
             (unsigned long long)(stat->filetype == __WASI_FILETYPE_DIRECTORY ? 0 : stat->size));
}

static void open_slot(void)
{
    int *slot = &slots[number(1) % SLOTS], directory = fd_at(2), fd = NO_FD;
    uint64_t rights = READ_WRITE & ~number(6);
    int error = path_open(directory, (int)number(3), words[4], length(4), (int)number(5), rights, rights, (int)number(7), &fd);
    finish(error);
    if (!error) {
        if (*slot != NO_FD && *slot != ROOT)
            closed(*slot);
        *slot = fd;
    }
}

static void close_slot(void)
{
    finish(fd_close(fd_at(1)));
    slots[number(1) % SLOTS] = NO_FD;
}

static void renumber(void)
{
    int from = fd_at(1), error = fd_renumber(from, fd_at(2));
    finish(error);
    if (!error && from != fd_at(2))
        slots[number(1) % SLOTS] = NO_FD;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names and types in alphabetical order. */
static void list(void)
{
    char *names[100];
    size_t found = 0, size = number(2), used = size;
    uint64_t cookie = 0;
    int error = 0;
    while (used == size && found < 100) {
        error = fd_readdir(fd_at(1), buffer, size, cookie, &used);
        if (error)
            break;
        size_t at = 0;
        __wasi_dirent_t entry;
        while (at + sizeof entry <= used && found < 100) {
            memcpy(&entry, buffer + at, sizeof entry);
            if (at + sizeof entry + entry.d_namlen > used)
                break;
            names[found] = malloc(entry.d_namlen + 8);
            sprintf(names[found++], "%.*s %d", (int)entry.d_namlen, buffer + at + sizeof entry, entry.d_type);
            at += sizeof entry + entry.d_namlen;
            cookie = entry.d_next;
        }
        if (at == 0)
            break;
    }
    qsort(names, found, sizeof *names, by_text);
    finish(error);
    for (size_t i = 0; i < found; i++) {
        note("%u %s: %s", line_number, words[0], names[i]);
        free(names[i]);
    }
}

static void carry_out(void)
{
    uint64_t at = 0;
    __wasi_filestat_t stat;
    count = 0;
    if (is("open")) {
        open_slot();
    } else if (is("close")) {
        close_slot();
    } else if (is("renumber")) {
        renumber();
    } else if (is("read")) {
        finish_with(read_bytes(fd_at(1), buffer, number(2), &count), count);
        show_bytes();
    } else if (is("pread")) {
        finish_with(pread_bytes(fd_at(1), buffer, number(2), number(3), &count), count);
        show_bytes();
    } else if (is("write")) {
        finish_with(write_text(fd_at(1), words[2], &count), count);
    } else if (is("fill")) {
        finish_with(fill(fd_at(1), number(2)), count);
    } else if (is("pwrite")) {
        finish_with(pwrite_text(fd_at(1), words[2], number(3), &count), count);
    } else if (is("seek")) {
        finish_with(fd_seek(fd_at(1), (int64_t)strtoll(words[2], NULL, 0), (int)number(3), &at), at);
    } else if (is("tell")) {
        finish_with(fd_tell(fd_at(1), &at), at);
    } else if (is("resize")) {
        finish(fd_filestat_set_size(fd_at(1), number(2)));
    } else if (is("flags")) {
        finish(fd_fdstat_set_flags(fd_at(1), (int)number(2)));
    } else if (is("fstat")) {
        show_stat(fd_filestat_get(fd_at(1), &stat), &stat);
    } else if (is("stat")) {
        show_stat(path_filestat_get(fd_at(1), (int)number(2), words[3], length(3), &stat), &stat);
    } else if (is("mkdir")) {
        finish(path_create_directory(fd_at(1), words[2], length(2)));
    } else if (is("rmdir")) {
        finish(path_remove_directory(fd_at(1), words[2], length(2)));
    } else if (is("unlink")) {
        finish(path_unlink_file(fd_at(1), words[2], length(2)));
    } else if (is("rename")) {
        finish(path_rename(fd_at(1), words[2], length(2), fd_at(3), words[4], length(4)));
    } else if (is("link")) {
        finish(path_link(fd_at(1), 0, words[2], length(2), fd_at(3), words[4], length(4)));
    } else if (is("symlink")) {
        finish(path_symlink(words[1], length(1), fd_at(2), words[3], length(3)));
    } else if (is("readlink")) {
        finish_with(path_readlink(fd_at(1), words[2], length(2), (char *)buffer, number(3), &count), count);
        show_bytes();
    } else if (is("list")) {
        list();
    } else {
        exit(92);
    }
}

int main(void)
{
    char line[256];
    while (fgets(line, sizeof line, stdin)) {
        int found = 0;
        for (char *word = strtok(line, " \n"); word && found < WORDS; word = strtok(NULL, " \n"))
            words[found++] = word;
        while (found < WORDS)
            words[found++] = "";
        line_number++;
        carry_out();
    }
}
