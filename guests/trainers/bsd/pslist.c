/* All PIDs (FreeBSD). */
#include <sys/types.h>
#include <sys/sysctl.h>
#include <sys/user.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>

#include "virtuoso.h"

/* Room enough that no allocation is needed. */
static struct kinfo_proc processes[4096];
static uint32_t pids[4096];
static uint32_t count;
static int32_t rc;

int main(void)
{
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("count:u32", &count);
    virtuoso_output("pids:u32[count<=4096]", pids);
    virtuoso_begin("pslist");
    int mib[] = {CTL_KERN, KERN_PROC, KERN_PROC_PROC};
    size_t size = sizeof processes;
    if (sysctl(mib, 3, processes, &size, NULL, 0) == 0)
        for (; count < size / sizeof *processes; count++)
            pids[count] = processes[count].ki_pid;
    else
        rc = -errno;
    virtuoso_end();

    printf("rc %d count %u:", rc, count);
    for (uint32_t i = 0; i < count; i++)
        printf(" %u", pids[i]);
    printf("\n");
    return 0;
}
