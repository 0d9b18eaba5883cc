/* The system's time. */
#include <inttypes.h>
#include <stdio.h>

#include "native.h"
#include "virtuoso.h"

/* 1601 to 1970 */
#define EPOCH 11644473600

static int64_t sec;
static uint32_t nsec;
static int32_t rc;

static void ask(void)
{
    LARGE_INTEGER now;
    rc = NtQuerySystemTime(&now);
    /* In units of 100 ns. */
    sec = now.QuadPart / 10000000 - EPOCH;
    nsec = (uint32_t)(now.QuadPart % 10000000) * 100;
}

int main(void)
{
    ask();
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("sec:i64", &sec);
    virtuoso_output("nsec:u32", &nsec);
    virtuoso_begin("gettime");
    ask();
    virtuoso_end();

    printf("rc %d sec %" PRId64 " nsec %u\n", (int)rc, sec, (unsigned)nsec);
    return 0;
}
