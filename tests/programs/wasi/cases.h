/* Cases of which each can be a run of its own, because a runtime may end the program for it: argv[1] says which; without
 * it, all of them. */
#ifndef CASES_H
#define CASES_H

#include "check.h"

static int wanted = -1, count;

static void put_errno(int error)
{
    note("%s(%d)", errno_name(error), error);
}

/* The call is told before it is made. */
#define CASE(call)                                                                                                            \
    if (wanted < 0 || wanted == count) {                                                                                      \
        put(#call ": ", sizeof #call + 1);                                                                                    \
        put_errno(call);                                                                                                      \
    }                                                                                                                         \
    count++

#endif
