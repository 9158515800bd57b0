/* Small arrays and branches: fannkuch. Of each permutation of 1 to n, as many numbers from the front as the first one says
   are turned around, until the first is 1; the most turns that one needed, and a sum over all with alternating signs.
   argv[1]: n, at most 12. */
#include "workload.h"

enum { MOST = 12 };

static int turns(const int *permutation, int n)
{
    int p[MOST], count = 0;
    for (int i = 0; i < n; i++)
        p[i] = permutation[i];
    for (int first = p[0]; first != 0; first = p[0]) {
        for (int low = 0, high = first; low < high; low++, high--) {
            int other = p[low];
            p[low] = p[high];
            p[high] = other;
        }
        count++;
    }
    return count;
}

/* Takes the first `length` + 1 numbers one place to the left, the first of them to the end. */
static void rotate(int *permutation, int length)
{
    int first = permutation[0];
    for (int i = 0; i < length; i++)
        permutation[i] = permutation[i + 1];
    permutation[length] = first;
}

int main(int argc, char **argv)
{
    unsigned long size = workload(argc, argv, 11);
    if (size > MOST) {
        fprintf(stderr, "at most %d\n", MOST);
        return 2;
    }
    /* Numbers are counted from 0. rotations[i]: how often the first i + 1 were rotated since longer ones were. */
    int n = (int)size, permutation[MOST], rotations[MOST] = { 0 };
    for (int i = 0; i < n; i++)
        permutation[i] = i;

    long sum = 0;
    int most = 0, even = 1;
    for (;;) {
        int count = turns(permutation, n);
        if (count > most)
            most = count;
        sum += even ? count : -count;
        even = !even;

        int length = 1;
        while (length < n) {
            rotate(permutation, length);
            if (++rotations[length] <= length)
                break;
            rotations[length++] = 0;
        }
        if (length >= n)
            break;
    }
    printf("fannkuch(%d) = %d, sum %ld\n", n, most, sum);
    return 0;
}
