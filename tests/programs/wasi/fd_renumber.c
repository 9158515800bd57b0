/* fd_renumber: over files, directories, standard streams and itself, and to and from what is not open. */
#include "check.h"

static int over_itself(int fd)
{
    return fd_renumber(fd, fd);
}

static int onto_nothing(int fd)
{
    return fd_renumber(fd, NO_FD);
}

static int from_nothing(int fd)
{
    return fd_renumber(NO_FD, fd);
}

int main(void)
{
    size_t count;
    char buffer[8];
    __wasi_prestat_t prestat;
    int file = opened("file", 0, READ_ONLY, 0), numbers = opened("numbers", 0, READ_WRITE, 0);
    need(read_bytes(file, buffer, 3, &count), "fd_read");
    tell(fd_renumber(file, numbers), "file over file");
    tell(fd_close(file), "fd_close of the first number");
    tell_number(read_bytes(numbers, buffer, 4, &count), count, "fd_read of the second number");
    detail("\"%s\"", quoted(buffer, count));
    tell(write_text(numbers, "x", &count), "fd_write to it, which was not opened for that");

    tell(fd_renumber(numbers, numbers), "over itself");
    tell_number(read_bytes(numbers, buffer, 4, &count), count, "fd_read after it");
    tell(fd_renumber(numbers, NO_FD), "to a number not open");
    tell(fd_renumber(NO_FD, numbers), "from a number not open");
    tell(fd_renumber(NO_FD, NO_FD), "both not open");
    tell(fd_renumber(numbers, -1), "to -1");
    tell(fd_renumber(-1, numbers), "from -1");
    tell_number(read_bytes(numbers, buffer, 4, &count), count, "fd_read after all of them");

    int directory = opened("directory", DIRECTORY, READ_ONLY, 0), inside = -1;
    tell(fd_renumber(directory, numbers), "directory over file");
    tell(open_at(numbers, "a", 0, READ_ONLY, 0, &inside), "path_open in it");
    tell(fd_renumber(inside, numbers), "file over directory");
    tell_number(read_bytes(numbers, buffer, 8, &count), count, "fd_read of it");

    try_descriptors("over itself", over_itself);
    try_descriptors("to a number not open", onto_nothing);
    try_descriptors("from a number not open", from_nothing);

    int input = opened("file", 0, READ_ONLY, 0);
    tell(fd_renumber(input, 0), "file over standard input");
    tell_number(read_bytes(0, buffer, 5, &count), count, "fd_read of standard input");
    detail("\"%s\"", quoted(buffer, count));
    int error_output = opened("errors", CREAT, READ_WRITE, 0);
    tell(fd_renumber(error_output, 2), "file over standard error");
    tell_number(write_text(2, "an error", &count), count, "fd_write to standard error");
    tell(fd_renumber(2, 0), "standard error over standard input");
    tell_number(write_text(0, ", and more", &count), count, "fd_write to standard input");
    tell(fd_renumber(2, 0), "standard error again");

    int place = opened("file", 0, READ_ONLY, 0);
    int error = fd_renumber(1, place);
    output = error ? 1 : place;
    tell(error, "standard output over a file");
    detail("written to the new number");
    tell_number(write_text(1, "x", &count), count, "fd_write to the old number");

    int root = opened(".", DIRECTORY, READ_ONLY, 0);
    tell(fd_renumber(root, ROOT), "directory over a preopened one");
    tell(fd_prestat_get(ROOT, &prestat), "fd_prestat_get of it");
    tell(open_at(ROOT, "file", 0, READ_ONLY, 0, &inside), "path_open in it");
    tell(fd_renumber(ROOT, inside), "preopened directory over a file");
    tell(open_at(ROOT, "file", 0, READ_ONLY, 0, &root), "path_open in the old number");
    tell(open_at(inside, "file", 0, READ_ONLY, 0, &root), "path_open in the new number");
    root = inside;
    int fd;
    need(open_at(root, "errors", 0, READ_ONLY, 0, &fd), "errors");
    tell_number(read_bytes(fd, buffer, 8, &count), count, "what went to standard error");
    detail("\"%s\", size %llu", quoted(buffer, count), (unsigned long long)size_of(fd));
}
