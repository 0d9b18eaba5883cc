/* The system's time. */
#include <OS.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>

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
    /* In microseconds; it cannot fail. */
    bigtime_t now = real_time_clock_usecs();
    sec = now / 1000000;
    nsec = now % 1000000 * 1000;
    rc = 0;
    virtuoso_end();

    printf("rc %d sec %" PRId64 " nsec %u\n", (int)rc, sec, (unsigned)nsec);
    return 0;
}
