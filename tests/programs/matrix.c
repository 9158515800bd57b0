/* Floating point and memory: the product of two square matrices of doubles. argv[1]: rows and columns. The elements are
   small integers, so that each sum is exact. */
#include "workload.h"

static void fill(double *matrix, unsigned long size, uint32_t state)
{
    for (unsigned long i = 0; i < size * size; i++)
        matrix[i] = (double)random_below(&state, 19) - 9;
}

/* Along the rows of all three, a block of rows of `b` after the other, so that it stays in a cache. */
static void multiply(unsigned long size, const double *restrict a, const double *restrict b, double *restrict product)
{
    const unsigned long block = 32;
    for (unsigned long i = 0; i < size * size; i++)
        product[i] = 0;
    for (unsigned long from = 0; from < size; from += block) {
        unsigned long to = from + block < size ? from + block : size;
        for (unsigned long i = 0; i < size; i++)
            for (unsigned long k = from; k < to; k++) {
                double factor = a[i * size + k];
                for (unsigned long j = 0; j < size; j++)
                    product[i * size + j] += factor * b[k * size + j];
            }
    }
}

int main(int argc, char **argv)
{
    unsigned long size = workload(argc, argv, 1500);
    size_t bytes = size * size * sizeof(double);
    double *a = room_for(bytes), *b = room_for(bytes), *product = room_for(bytes);
    fill(a, size, 1);
    fill(b, size, 2);
    multiply(size, a, b, product);
    double trace = 0;
    for (unsigned long i = 0; i < size; i++)
        trace += product[i * size + i];
    printf("trace %.0f, %08x\n", trace, (unsigned)fnv(FNV_START, product, bytes));
    return 0;
}
