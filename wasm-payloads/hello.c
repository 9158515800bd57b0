/* The smallest C program: what a compiler, its C library and its start code make of a hello world. */
#include <stdio.h>

int main(void)
{
    puts("Hello from C in a micro VM!");
    return 0;
}
