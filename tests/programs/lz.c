/* Bytes and hash tables: a compressor of the LZ77 kind over generated text, and its decompressor, which must give the text
   back. argv[1]: MiB of text.

   The compressed form is a sequence of groups: a byte whose bits tell, from the lowest on, what each of up to eight items
   is, then the items. 0: a literal byte. 1: a copy in three bytes, of 4 to 259 bytes from 1 to 65536 bytes before: the
   distance less 1 in little endian, the length less 4. */
#include <string.h>
#include "workload.h"

enum { WINDOW = 1 << 16, HASHES = 1 << 15, SHORTEST = 4, LONGEST = 259, TRIES = 24, NONE = -1 };

/* Words with frequencies as unequal as those of a language, some numbers, and a line end now and then. */
static void write_text(uint8_t *text, size_t bytes)
{
    enum { WORDS = 4096 };
    static uint8_t words[WORDS][12];
    static size_t lengths[WORDS];
    uint32_t state = 1;
    for (int i = 0; i < WORDS; i++) {
        lengths[i] = 2 + random_below(&state, 10);
        for (size_t k = 0; k < lengths[i]; k++)
            words[i][k] = (uint8_t)('a' + random_below(&state, 5 + random_below(&state, 22)));
    }
    size_t at = 0;
    while (at < bytes) {
        uint8_t item[16];
        size_t length = 0;
        uint32_t kind = random_below(&state, 32);
        if (kind == 0) {
            length = (size_t)snprintf((char *)item, sizeof item, "%u", (unsigned)(random_number(&state) >> 12));
        } else {
            uint32_t word = random_below(&state, 1 + random_below(&state, WORDS));
            length = lengths[word];
            memcpy(item, words[word], length);
        }
        item[length++] = kind == 1 ? '\n' : ' ';
        for (size_t i = 0; i < length && at < bytes; i++)
            text[at++] = item[i];
    }
}

static uint32_t hash(const uint8_t *at)
{
    uint32_t word;
    memcpy(&word, at, sizeof word);
    return word * 2654435761u >> (32 - 15);
}

/* Positions with the same hash, the latest first: `heads` by hash, `earlier` by position in the window. */
struct chains {
    int32_t heads[HASHES], earlier[WINDOW];
};

static void remember(struct chains *chains, const uint8_t *text, size_t at)
{
    uint32_t slot = hash(text + at);
    chains->earlier[at % WINDOW] = chains->heads[slot];
    chains->heads[slot] = (int32_t)at;
}

struct match {
    size_t length, distance;
};

static struct match longest(const struct chains *chains, const uint8_t *text, size_t at, size_t end)
{
    struct match best = { 0, 0 };
    size_t most = end - at < LONGEST ? end - at : LONGEST;
    int32_t other = chains->heads[hash(text + at)];
    for (int tries = 0; other != NONE && at - (size_t)other <= WINDOW - 1 && tries < TRIES; tries++) {
        const uint8_t *a = text + other, *b = text + at;
        /* Only what is longer than the best so far is of interest. */
        if (a[best.length] == b[best.length]) {
            size_t length = 0;
            while (length < most && a[length] == b[length])
                length++;
            if (length > best.length) {
                best = (struct match){ length, at - (size_t)other };
                if (length == most)
                    break;
            }
        }
        other = chains->earlier[other % WINDOW];
    }
    return best;
}

static size_t compress(const uint8_t *text, size_t bytes, uint8_t *to)
{
    static struct chains chains;
    memset(chains.heads, 0xff, sizeof chains.heads);
    size_t written = 0, at = 0;
    while (at < bytes) {
        uint8_t *kinds = to + written++;
        *kinds = 0;
        for (int item = 0; item < 8 && at < bytes; item++) {
            struct match match = { 0, 0 };
            size_t step = 1;
            if (bytes - at >= SHORTEST)
                match = longest(&chains, text, at, bytes);
            if (match.length >= SHORTEST) {
                *kinds |= (uint8_t)(1 << item);
                to[written++] = (uint8_t)(match.distance - 1);
                to[written++] = (uint8_t)((match.distance - 1) >> 8);
                to[written++] = (uint8_t)(match.length - SHORTEST);
                step = match.length;
            } else {
                to[written++] = text[at];
            }
            for (; step > 0; step--, at++)
                if (bytes - at >= SHORTEST)
                    remember(&chains, text, at);
        }
    }
    return written;
}

static size_t decompress(const uint8_t *from, size_t bytes, uint8_t *to)
{
    size_t read = 0, written = 0;
    while (read < bytes) {
        uint8_t kinds = from[read++];
        for (int item = 0; item < 8 && read < bytes; item++) {
            if (kinds >> item & 1) {
                size_t distance = (size_t)(from[read] | from[read + 1] << 8) + 1, length = (size_t)from[read + 2] + SHORTEST;
                read += 3;
                /* Byte by byte: it may reach into what it writes. */
                for (size_t i = 0; i < length; i++, written++)
                    to[written] = to[written - distance];
            } else {
                to[written++] = from[read++];
            }
        }
    }
    return written;
}

int main(int argc, char **argv)
{
    size_t bytes = workload(argc, argv, 48) << 20;
    /* At worst a ninth bit for each byte. */
    uint8_t *text = room_for(bytes), *packed = room_for(bytes + bytes / 8 + 1), *again = room_for(bytes);
    write_text(text, bytes);
    size_t size = compress(text, bytes, packed);
    if (decompress(packed, size, again) != bytes || memcmp(text, again, bytes) != 0) {
        fprintf(stderr, "another text came back\n");
        return 1;
    }
    printf("%zu bytes in %zu, %08x %08x\n", bytes, size, (unsigned)fnv(FNV_START, text, bytes),
           (unsigned)fnv(FNV_START, packed, size));
    return 0;
}
