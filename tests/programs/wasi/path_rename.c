/* path_rename: files, directories and links over each other, into themselves, while open; every kind of path. */
#include "check.h"

static int rename_at(const char *from, const char *to)
{
    return path_rename(ROOT, from, strlen(from), ROOT, to, strlen(to));
}

static int there_and_back(const char *path, size_t length)
{
    int error = path_rename(ROOT, path, length, ROOT, "moved", 5);
    while (!error && path[length - 1] == '/')
        length--;
    if (!error)
        need(path_rename(ROOT, "moved", 5, ROOT, path, length), "path_rename");
    return error;
}

static int to_path(const char *moved, const char *path, size_t length)
{
    int error = path_rename(ROOT, moved, strlen(moved), ROOT, path, length);
    while (!error && path[length - 1] == '/')
        length--;
    if (!error)
        need(path_rename(ROOT, path, length, ROOT, moved, strlen(moved)), "path_rename");
    return error;
}

static int file_to(const char *path, size_t length)
{
    return to_path("moving", path, length);
}

static int directory_to(const char *path, size_t length)
{
    return to_path("moving_directory", path, length);
}

static int from_descriptor(int fd)
{
    int error = path_rename(fd, "a", 1, ROOT, "moved", 5);
    if (!error)
        need(path_rename(ROOT, "moved", 5, fd, "a", 1), "path_rename");
    return error;
}

static int to_descriptor(int fd)
{
    int error = path_rename(ROOT, "moving", 6, fd, "moved", 5);
    if (!error)
        need(path_rename(fd, "moved", 5, ROOT, "moving", 6), "path_rename");
    return error;
}

static void make(const char *path)
{
    need(path_create_directory(ROOT, path, strlen(path)), path);
}

int main(void)
{
    size_t count;
    char buffer[8];
    make_file("one", "one");
    make_file("two", "two");
    tell(rename_at("one", "new"), "file");
    tell(rename_at("one", "new"), "file again");
    tell(rename_at("new", "two"), "file over file");
    show_file("file over file", "two");
    tell(rename_at("two", "two"), "over itself");
    tell(rename_at("two", "./two"), "over itself, spelled differently");
    tell(rename_at("two", "directory"), "file over directory");
    tell(rename_at("two", "empty_directory"), "file over empty directory");
    tell(rename_at("two", "directory/two"), "into a directory");
    tell(rename_at("directory/two", "two"), "out of a directory");
    tell(rename_at("two", "two/"), "file to a name with a slash");
    tell(rename_at("two", "new/"), "file to a new name with a slash");
    make_file("two", "two");
    tell(rename_at("two/", "three"), "file from a name with a slash");
    make_file("two", "two");
    tell(rename_at("two", "missing/new"), "into a missing directory");
    tell(rename_at("two", "file/new"), "into a file");
    tell(rename_at("missing", "three"), "missing");
    tell(rename_at("two", "link"), "file over link");
    show_file("file behind the link", "file");
    tell(rename_at("link", "link_moved"), "what was a link");
    tell(rename_at("dangling", "dangling_moved"), "dangling link");
    tell(rename_at("dangling_moved", "file_moved"), "dangling link to a new name");
    tell(rename_at("file_moved", "dangling"), "dangling link back");
    tell(rename_at("leaving", "directory/leaving_moved"), "leaving link");

    make("empty_too");
    make("full");
    make("full/inside");
    tell(rename_at("empty_too", "renamed"), "directory");
    tell(rename_at("renamed", "empty_directory"), "directory over empty directory");
    tell(rename_at("empty_directory", "full"), "directory over full directory");
    tell(rename_at("full", "file"), "directory over file");
    tell(rename_at("full", "directory_link"), "directory over link to a directory");
    tell(rename_at("full", "full/inside/below"), "directory into itself");
    tell(rename_at("full", "full/inside"), "directory over what is in it");
    tell(rename_at("full/inside", "full"), "directory over its parent");
    tell(rename_at("full", "full_too/"), "directory to a new name with a slash");
    tell(rename_at("full_too/", "full"), "directory from a name with a slash");
    tell(rename_at("full/.", "four"), "dot of a directory");
    tell(rename_at("full", "four/."), "to a dot");
    tell(rename_at(".", "four"), "preopened directory");
    tell(rename_at("full", "."), "over the preopened directory");
    tell(rename_at("fifo", "fifo_moved"), "fifo");
    tell(rename_at("fifo_moved", "fifo"), "fifo back");
    tell(rename_at("hard_link", "hard_link_too"), "over a hard link of the same file");

    make_file("crossing", "crossing");
    tell(path_rename(ROOT, "crossing", 8, OUTSIDE, "crossed", 7), "to another preopened directory");
    tell(path_rename(OUTSIDE, "crossed", 7, ROOT, "crossing", 8), "and back");
    show_file("after that", "crossing");
    tell(path_rename(OUTSIDE, "../sandbox/crossing", 19, ROOT, "new", 3), "from beside another preopened directory");

    make_file("open", "text");
    int fd = opened("open", 0, READ_WRITE, 0);
    tell(rename_at("open", "opened"), "open file");
    tell_number(read_bytes(fd, buffer, 8, &count), count, "fd_read of it");
    need(write_text(fd, " more", &count), "fd_write");
    show_file("open file", "opened");
    make_file("victim", "victim");
    int victim = opened("victim", 0, READ_WRITE, 0);
    tell(rename_at("opened", "victim"), "over an open file");
    tell_number(read_bytes(victim, buffer, 8, &count), count, "fd_read of what was there");
    detail("\"%s\"", quoted(buffer, count));
    int directory = opened("full", DIRECTORY, READ_ONLY, 0), inside = -1;
    tell(rename_at("full", "directory/full"), "open directory");
    tell(open_at(directory, "inside", DIRECTORY, READ_ONLY, 0, &inside), "path_open in it");
    tell(path_rename(directory, "inside", 6, ROOT, "inside", 6), "from a directory opened");
    tell(path_rename(ROOT, "inside", 6, directory, "../inside", 9), "to beside a directory opened");

    make_file("moving", "moving");
    make("moving_directory");
    tell(path_rename(NO_FD, "", 0, NO_FD, "", 0), "all wrong");
    try_descriptors("path_rename from", from_descriptor);
    try_descriptors("path_rename to", to_descriptor);
    try_paths("path_rename from", there_and_back);
    try_paths("path_rename file to", file_to);
    try_paths("path_rename directory to", directory_to);
}
