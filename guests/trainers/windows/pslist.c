/* All PIDs. */
#include <stdio.h>

#include "native.h"
#include "virtuoso.h"

static union {
    SYSTEM_PROCESS_INFORMATION first;
    char bytes[1 << 20];
} processes;
static uint32_t pids[4096];
static uint32_t count;
static int32_t rc;

static void ask(void)
{
    ULONG used = 0;
    count = 0;
    rc = NtQuerySystemInformation(SYSTEM_PROCESSES, &processes, sizeof processes, &used);
    const SYSTEM_PROCESS_INFORMATION *at = &processes.first;
    while (rc >= 0 && count < 4096) {
        pids[count++] = (uint32_t)(uintptr_t)at->UniqueProcessId;
        if (at->NextEntryOffset == 0)
            break;
        at = (const SYSTEM_PROCESS_INFORMATION *)((const char *)at + at->NextEntryOffset);
    }
}

int main(void)
{
    ask();
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("count:u32", &count);
    virtuoso_output("pids:u32[count<=4096]", pids);
    virtuoso_begin("pslist");
    ask();
    virtuoso_end();

    printf("rc %d count %u:", (int)rc, (unsigned)count);
    for (uint32_t i = 0; i < count; i++)
        printf(" %u", (unsigned)pids[i]);
    printf("\n");
    return 0;
}
