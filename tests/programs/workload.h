/* The compute programs take the size of their work as argv[1]; their data are generated, the same in each run. */
#ifndef WORKLOAD_H
#define WORKLOAD_H

#include <stddef.h>
#include <stdint.h>
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

/* The next of numbers that look random, of which the top bits are the best. */
static inline uint32_t random_number(uint32_t *state)
{
    return *state = *state * 1664525u + 1013904223u;
}

/* A number below `bound`, which fits in 16 bits. */
static inline uint32_t random_below(uint32_t *state, uint32_t bound)
{
    return (random_number(state) >> 16) * bound >> 16;
}

/* FNV-1a of bytes, going on from `sum`, which begins as FNV_START. */
#define FNV_START 0x811c9dc5u

static inline uint32_t fnv(uint32_t sum, const void *bytes, size_t count)
{
    const uint8_t *at = bytes;
    for (size_t i = 0; i < count; i++)
        sum = (sum ^ at[i]) * 0x01000193u;
    return sum;
}

static inline void *room_for(size_t bytes)
{
    void *room = malloc(bytes);
    if (room == NULL) {
        fprintf(stderr, "there is no memory for %zu bytes\n", bytes);
        exit(1);
    }
    return room;
}

#endif
