/* The compute programs take the size of their work as argv[1]. */
#ifndef WORKLOAD_H
#define WORKLOAD_H

#include <stdio.h>
#include <stdlib.h>

static inline unsigned long workload(int argc, char **argv, unsigned long standard)
{
    if (argc < 2)
        return standard;
    char *end;
    unsigned long size = strtoul(argv[1], &end, 10);
    if (end == argv[1] || *end || size == 0) {
        fprintf(stderr, "%s: \"%s\" is not a positive number\n", argv[0], argv[1]);
        exit(2);
    }
    return size;
}

#endif
