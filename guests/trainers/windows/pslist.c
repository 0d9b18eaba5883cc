/* All PIDs. */
#define PSAPI_VERSION 1
#include <stdint.h>
#include <stdio.h>
#include <windows.h>
#include <psapi.h>

#include "virtuoso.h"

static uint32_t pids[4096];
static uint32_t count;
static int32_t rc;

int main(void)
{
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("count:u32", &count);
    virtuoso_output("pids:u32[count<=4096]", pids);
    virtuoso_begin("pslist");
    DWORD used;
    if (EnumProcesses((DWORD *)pids, sizeof pids, &used))
        count = used / sizeof *pids;
    else
        rc = -(int32_t)GetLastError();
    virtuoso_end();

    printf("rc %d count %u:", (int)rc, (unsigned)count);
    for (uint32_t i = 0; i < count; i++)
        printf(" %u", (unsigned)pids[i]);
    printf("\n");
    return 0;
}
