#define GREETING "hello, %s\n"
