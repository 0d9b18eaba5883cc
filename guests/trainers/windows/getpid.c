/* The PID of the running process. */
#include <stdio.h>

#include "native.h"
#include "virtuoso.h"

static uint32_t pid;
static int32_t rc;

/* GetCurrentProcessId reads it from the thread's own block, which is the training process's. */
static void ask(void)
{
    static PROCESS_BASIC_INFORMATION about;
    ULONG used = 0;
    rc = NtQueryInformationProcess((HANDLE)-1, ProcessBasicInformation, &about, sizeof about, &used);
    pid = (uint32_t)(uintptr_t)about.UniqueProcessId;
}

int main(void)
{
    ask();
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("pid:u32", &pid);
    virtuoso_begin("getpid");
    ask();
    virtuoso_end();

    printf("rc %d pid %u\n", (int)rc, (unsigned)pid);
    return 0;
}
