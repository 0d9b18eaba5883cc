/* The base addresses of the kernel's drivers. */
#define PSAPI_VERSION 1
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <windows.h>
#include <psapi.h>

#include "virtuoso.h"

static LPVOID drivers[1024];
static uint64_t bases[1024];
static uint32_t count;
static int32_t rc;

int main(void)
{
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("count:u32", &count);
    virtuoso_output("bases:u64[count<=1024]", bases);
    virtuoso_begin("lsmod");
    DWORD used;
    if (EnumDeviceDrivers(drivers, sizeof drivers, &used)) {
        /* It says how much room all of them would take. */
        for (; count < used / sizeof *drivers && count < 1024; count++)
            bases[count] = (uintptr_t)drivers[count];
    } else {
        rc = -(int32_t)GetLastError();
    }
    virtuoso_end();

    printf("rc %d count %u:", (int)rc, (unsigned)count);
    for (uint32_t i = 0; i < count; i++)
        printf(" %" PRIx64, bases[i]);
    printf("\n");
    return 0;
}
