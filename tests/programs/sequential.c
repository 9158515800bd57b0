// Writes a file of MIB mebibytes in pieces of BYTES, or reads it, or reads it line by line, and says what came.
//
//   sequential write|read|lines FILE [MIB, 256] [BYTES, 65536]

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fail(const char *what) {
    perror(what);
    return 1;
}

static int write_file(const char *path, uint64_t bytes, size_t piece) {
    char *buffer = malloc(piece);
    // Lines of 64 bytes.
    for (size_t at = 0; at < piece; at++) buffer[at] = at % 64 == 63 ? '\n' : 'a' + at % 26;
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (file < 0) return fail("open");
    for (uint64_t done = 0; done < bytes;) {
        size_t wanted = bytes - done < piece ? bytes - done : piece;
        ssize_t written = write(file, buffer, wanted);
        if (written <= 0) return fail("write");
        done += written;
    }
    if (close(file) != 0) return fail("close");
    printf("%llu bytes written\n", (unsigned long long)bytes);
    return 0;
}

static int read_file(const char *path, size_t piece) {
    char *buffer = malloc(piece);
    int file = open(path, O_RDONLY);
    if (file < 0) return fail("open");
    uint64_t total = 0, sum = 0;
    ssize_t got;
    while ((got = read(file, buffer, piece)) > 0) {
        total += got;
        sum += (unsigned char)buffer[0] + (unsigned char)buffer[got - 1];
    }
    if (got < 0) return fail("read");
    printf("%llu bytes read, sum %llu\n", (unsigned long long)total, (unsigned long long)sum);
    return 0;
}

static int read_lines(const char *path) {
    FILE *file = fopen(path, "r");
    if (file == NULL) return fail("fopen");
    char line[256];
    unsigned long long count = 0, bytes = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        count += 1;
        bytes += strlen(line);
    }
    printf("%llu lines, %llu bytes\n", count, bytes);
    return fclose(file) == 0 ? 0 : fail("fclose");
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fputs("usage: sequential write|read|lines FILE [MIB] [BYTES]\n", stderr);
        return 2;
    }
    uint64_t bytes = (argc > 3 ? strtoull(argv[3], NULL, 10) : 256) << 20;
    size_t piece = argc > 4 ? strtoul(argv[4], NULL, 10) : 65536;
    if (strcmp(argv[1], "write") == 0) return write_file(argv[2], bytes, piece);
    if (strcmp(argv[1], "read") == 0) return read_file(argv[2], piece);
    return read_lines(argv[2]);
}
