#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "greeting.h"

int main(int argc, char **argv) {
    printf(GREETING, argc > 1 ? argv[1] : "world");
    FILE *file = fopen("/absent", "r");
    if (!file) printf("%s\n", strerror(errno));
    return argc;
}
