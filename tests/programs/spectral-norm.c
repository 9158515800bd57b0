/* Floating point and division: the spectral norm of the infinite matrix 1, 1/2, 1/3, 1/4, ... laid out in diagonals, by
   the power method. argv[1]: rows and columns of the corner that stands for it. */
#include <math.h>
#include "workload.h"

enum { ROUNDS = 10 };

static double element(unsigned long row, unsigned long column)
{
    unsigned long diagonal = row + column;
    return 1.0 / (double)(diagonal * (diagonal + 1) / 2 + row + 1);
}

static void times(unsigned long size, const double *from, double *to)
{
    for (unsigned long i = 0; i < size; i++) {
        double sum = 0;
        for (unsigned long j = 0; j < size; j++)
            sum += element(i, j) * from[j];
        to[i] = sum;
    }
}

static void times_transposed(unsigned long size, const double *from, double *to)
{
    for (unsigned long i = 0; i < size; i++) {
        double sum = 0;
        for (unsigned long j = 0; j < size; j++)
            sum += element(j, i) * from[j];
        to[i] = sum;
    }
}

static double dot(unsigned long size, const double *a, const double *b)
{
    double sum = 0;
    for (unsigned long i = 0; i < size; i++)
        sum += a[i] * b[i];
    return sum;
}

int main(int argc, char **argv)
{
    unsigned long size = workload(argc, argv, 5500);
    double *u = room_for(size * sizeof *u), *v = room_for(size * sizeof *v), *between = room_for(size * sizeof *between);
    for (unsigned long i = 0; i < size; i++)
        u[i] = 1;
    for (int round = 0; round < ROUNDS; round++) {
        times(size, u, between);
        times_transposed(size, between, v);
        times(size, v, between);
        times_transposed(size, between, u);
    }
    printf("%.9f\n", sqrt(dot(size, u, v) / dot(size, v, v)));
    return 0;
}
