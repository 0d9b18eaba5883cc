/* The clock ticks between the marks, before the work that asks for the time; with the argument `once` the work is short. */
#include <time.h>

#include "work.h"

static int64_t seconds;
static int64_t nanoseconds;

int main(int argc, char **argv)
{
    struct timespec now;
    volatile uint32_t turns = argc > 1 ? 1 : 400000;
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("seconds:i64", &seconds);
    virtuoso_output("nanoseconds:i64", &nanoseconds);
    virtuoso_begin("ticked");
    while (turns)
        turns--;
    rc = clock_gettime(CLOCK_REALTIME_COARSE, &now);
    seconds = now.tv_sec;
    nanoseconds = now.tv_nsec;
    virtuoso_end();
    printf("rc %d seconds %lld\n", rc, (long long)seconds);
    return 0;
}
