/* What a C program asks of its host first: stdio, arguments, environment, the heap and an exit status. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    printf("hello from C, %d argument%s\n", argc - 1, argc == 2 ? "" : "s");
    for (int i = 1; i < argc; i++)
        printf("argv[%d] = %s\n", i, argv[i]);

    const char *greeting = getenv("GREETING");
    if (greeting)
        printf("GREETING = %s\n", greeting);

    /* Larger than what the module starts with, so that malloc must grow the memory. */
    size_t size = 4u << 20;
    unsigned char *block = malloc(size);
    if (!block) {
        fputs("malloc failed\n", stderr);
        return 1;
    }
    memset(block, 0x5a, size);
    unsigned long sum = 0;
    for (size_t i = 0; i < size; i += 4096)
        sum += block[i];
    free(block);
    printf("sum %lu, pi %.6f\n", sum, 3.14159265358979);
    return argc > 1 && strcmp(argv[1], "fail") == 0 ? 3 : 0;
}
