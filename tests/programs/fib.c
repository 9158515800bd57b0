/* Calls: Fibonacci's numbers by plain double recursion. argv[1]: which one. */
#include "workload.h"

/* Not inlined into itself: a call should stay a call. */
__attribute__((noinline)) static unsigned long long fib(unsigned long n)
{
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

int main(int argc, char **argv)
{
    unsigned long n = workload(argc, argv, 40);
    printf("fib(%lu) = %llu\n", n, fib(n));
    return 0;
}
