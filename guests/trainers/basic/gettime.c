/* The system's time, as the kernel noted it last: a tick old at most in a system that works, older in
 * an idle one. The exact clock reads a counter, and no dump can answer for a counter that is a device:
 * Linux takes the HPET where there are several processors whose time stamp counters it does not trust.
 * Beside it what the system's other clock says at the same tick, which counts from the system's start (without the time that it
 * slept): when it started is the difference, and procfs gives the start of processes from there on.
 */
#include "linux-calls.h"
#include "virtuoso.h"

#define CLOCK_REALTIME_COARSE 5
#define CLOCK_MONOTONIC_COARSE 6

static int64_t sec;
static uint32_t nsec;
static int64_t up_sec;
static uint32_t up_nsec;
static int32_t rc;

/* Seconds and nanoseconds as the kernel has them. Where words have 32 bits there is a call for more seconds than fit into one,
 * in kernels from 5.1 on; without it the seconds end in 2038. */
static int64_t now[2];

static int32_t ask(int clock)
{
#if defined(__i386__)
    int32_t failed = (int32_t)call(NR_clock_gettime64, clock, now);
    if (failed != -ENOSYS)
        return failed;
    int32_t *narrow = (int32_t *)now;
    failed = (int32_t)call(NR_clock_gettime, clock, narrow);
    now[1] = narrow[1];
    now[0] = narrow[0];
    return failed;
#else
    return (int32_t)call(NR_clock_gettime, clock, now);
#endif
}

int main(UNUSED int argc, UNUSED char **argv)
{
    touch(now, sizeof now);
    touch_stack();

    virtuoso_output("rc:i32", &rc);
    virtuoso_output("sec:i64", &sec);
    virtuoso_output("nsec:u32", &nsec);
    virtuoso_output("up_sec:i64", &up_sec);
    virtuoso_output("up_nsec:u32", &up_nsec);
    virtuoso_begin("gettime");
    rc = ask(CLOCK_REALTIME_COARSE);
    if (rc == 0) {
        sec = now[0];
        nsec = (uint32_t)now[1];
    }
    /* Without it both stay 0. */
    if (rc == 0 && ask(CLOCK_MONOTONIC_COARSE) == 0) {
        up_sec = now[0];
        up_nsec = (uint32_t)now[1];
    }
    virtuoso_end();
    return 0;
}
