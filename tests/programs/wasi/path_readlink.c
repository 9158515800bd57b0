/* path_readlink: targets in buffers of all sizes, what is no link, and every kind of path. */
#include "check.h"

static char buffer[8192];
static size_t used;

static int get(const char *path, size_t length)
{
    return path_readlink(ROOT, path, length, buffer, sizeof buffer, &used);
}

static int inside(int fd)
{
    return path_readlink(fd, "up", 2, buffer, sizeof buffer, &used);
}

int main(void)
{
    static const char *const paths[] = {
        "link",         "link_to_link",       "directory_link", "dangling",  "loop",    "leaving", "leaving_directory",
        "absolute",     "absolute_host",      "bytes/link",     "file",      "missing", "fifo",    "directory",
        "directory/up", "directory_link/up",  "link/x",         "loop/x",
    };
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        int error = get(paths[i], strlen(paths[i]));
        tell_number(error, used, "%s", paths[i]);
        if (!error)
            detail("-> \"%s\"", quoted(buffer, used));
    }
    for (size_t size = 0; size <= 6; size++) {
        memset(buffer, '?', sizeof buffer);
        tell_number(path_readlink(ROOT, "link", 4, buffer, size, &used), used, "link into %zu bytes", size);
        detail("\"%s\"", quoted(buffer, 8));
    }
    tell_number(path_readlink(ROOT, "file", 4, buffer, 0, &used), used, "file into nothing");

    static char target[4096];
    memset(target, 't', sizeof target);
    static const size_t lengths[] = {1000, 4094, 4095};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        tell(path_symlink(target, lengths[i], ROOT, "long", 4), "path_symlink to %zu bytes", lengths[i]);
        tell_number(get("long", 4), used, "target of %zu bytes", lengths[i]);
        path_unlink_file(ROOT, "long", 4);
    }
    tell(path_symlink("n\xc3\xa4me", 5, ROOT, "umlaut", 6), "path_symlink to a name in UTF-8");
    tell_number(get("umlaut", 6), used, "target in UTF-8");
    tell_number(path_readlink(ROOT, "umlaut", 6, buffer, 2, &used), used, "target cut inside a character");
    need(path_unlink_file(ROOT, "umlaut", 6), "path_unlink_file");
    try_descriptors("path_readlink in", inside);
    try_paths("path_readlink", get);
}
