/* The system's time. */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <windows.h>

#include "virtuoso.h"

/* 1601 to 1970 */
#define EPOCH 11644473600

static int64_t sec;
static uint32_t nsec;
static int32_t rc;

int main(void)
{
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("sec:i64", &sec);
    virtuoso_output("nsec:u32", &nsec);
    virtuoso_begin("gettime");
    /* In units of 100 ns; it cannot fail. */
    FILETIME now;
    GetSystemTimeAsFileTime(&now);
    uint64_t units = (uint64_t)now.dwHighDateTime << 32 | now.dwLowDateTime;
    sec = (int64_t)(units / 10000000) - EPOCH;
    nsec = (uint32_t)(units % 10000000) * 100;
    rc = 0;
    virtuoso_end();

    printf("rc %d sec %" PRId64 " nsec %u\n", (int)rc, sec, (unsigned)nsec);
    return 0;
}
