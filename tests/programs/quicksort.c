/* Branches and memory: quicksort of 32-bit numbers. argv[1]: how many. */
#include "workload.h"

enum { SHORT = 16 };

static void insertion_sort(uint32_t *from, uint32_t *end)
{
    for (uint32_t *next = from + 1; next < end; next++) {
        uint32_t number = *next, *at = next;
        for (; at > from && at[-1] > number; at--)
            *at = at[-1];
        *at = number;
    }
}

static uint32_t median(uint32_t a, uint32_t b, uint32_t c)
{
    if (a < b)
        return b < c ? b : a < c ? c : a;
    return a < c ? a : b < c ? c : b;
}

/* Hoare's partition; the longer part is left to the loop, so that the stack stays shallow. */
static void quicksort(uint32_t *from, uint32_t *end)
{
    while (end - from > SHORT) {
        uint32_t pivot = median(from[0], from[(end - from) / 2], end[-1]);
        uint32_t *low = from, *high = end - 1;
        for (;; low++, high--) {
            while (*low < pivot)
                low++;
            while (*high > pivot)
                high--;
            if (low >= high)
                break;
            uint32_t other = *low;
            *low = *high;
            *high = other;
        }
        if (low - from < end - low) {
            quicksort(from, low);
            from = low;
        } else {
            quicksort(low, end);
            end = low;
        }
    }
    if (end - from > 1)
        insertion_sort(from, end);
}

int main(int argc, char **argv)
{
    unsigned long count = workload(argc, argv, 15000000);
    uint32_t *numbers = room_for(count * sizeof *numbers), state = 1, sum = 0, after = 0;
    for (unsigned long i = 0; i < count; i++)
        sum += numbers[i] = random_number(&state);
    quicksort(numbers, numbers + count);
    for (unsigned long i = 0; i < count; i++) {
        after += numbers[i];
        if (i > 0 && numbers[i - 1] > numbers[i]) {
            fprintf(stderr, "number %lu is out of order\n", i);
            return 1;
        }
    }
    if (after != sum) {
        fprintf(stderr, "they are other numbers than before\n");
        return 1;
    }
    printf("median %u, %08x\n", (unsigned)numbers[count / 2], (unsigned)fnv(FNV_START, numbers, count * sizeof *numbers));
    return 0;
}
