/* The system's time, as the kernel noted it last: a tick old at most in a system that works, older in
 * an idle one. The exact clock reads a counter, and no dump can answer for a counter that is a device:
 * Linux takes the HPET where there are several processors whose time stamp counters it does not trust.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include "virtuoso.h"

static int64_t sec;
static uint32_t nsec;
static int32_t rc;

int main(void)
{
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("sec:i64", &sec);
    virtuoso_output("nsec:u32", &nsec);
    virtuoso_begin("gettime");
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME_COARSE, &now) == 0) {
        sec = now.tv_sec;
        nsec = now.tv_nsec;
    } else {
        rc = -errno;
    }
    virtuoso_end();

    printf("rc %d sec %" PRId64 " nsec %u\n", rc, sec, nsec);
    return 0;
}
