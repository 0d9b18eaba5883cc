/* The system's time, as the kernel noted it last: a tick old at most in a system that works, older in
 * an idle one. The exact clock reads a counter, and no dump can answer for a counter that is a device:
 * Linux takes the HPET where there are several processors whose time stamp counters it does not trust.
 */
#include "linux-calls.h"
#include "virtuoso.h"

#define CLOCK_REALTIME_COARSE 5

static int64_t sec;
static uint32_t nsec;
static int32_t rc;

/* Seconds and nanoseconds as the kernel has them. Where words have 32 bits there is a call for more seconds than fit into one,
 * in kernels from 5.1 on; without it the seconds end in 2038. */
static int64_t now[2];

static int32_t ask(void)
{
#if defined(__i386__)
    int32_t failed = (int32_t)call(NR_clock_gettime64, CLOCK_REALTIME_COARSE, now);
    if (failed != -ENOSYS)
        return failed;
    int32_t *narrow = (int32_t *)now;
    failed = (int32_t)call(NR_clock_gettime, CLOCK_REALTIME_COARSE, narrow);
    now[1] = narrow[1];
    now[0] = narrow[0];
    return failed;
#else
    return (int32_t)call(NR_clock_gettime, CLOCK_REALTIME_COARSE, now);
#endif
}

int main(UNUSED int argc, UNUSED char **argv)
{
    touch(now, sizeof now);
    touch_stack();

    virtuoso_output("rc:i32", &rc);
    virtuoso_output("sec:i64", &sec);
    virtuoso_output("nsec:u32", &nsec);
    virtuoso_begin("gettime");
    rc = ask();
    if (rc == 0) {
        sec = now[0];
        nsec = (uint32_t)now[1];
    }
    virtuoso_end();
    return 0;
}
