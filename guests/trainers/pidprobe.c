/* All PIDs below a limit that can be sent a signal: pidprobe LIMIT. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "virtuoso.h"

static uint32_t pids[65536];
static uint32_t count;
static uint32_t limit;

int main(int argc, char **argv)
{

    limit = argc > 1 ? strtoul(argv[1], NULL, 10) : 1024;
    virtuoso_input("limit:u32", &limit);
    virtuoso_output("count:u32", &count);
    virtuoso_output("pids:u32[count<=65536]", pids);
    virtuoso_begin("pidprobe");
    /* Signal 0 only asks; thread PID of process PID: threads other than the first are no processes. */
    for (uint32_t pid = 1; pid < limit && count < 65536; pid++)
        if (syscall(SYS_tgkill, pid, pid, 0) == 0 || errno == EPERM)
            pids[count++] = pid;
    virtuoso_end();

    printf("count %u\n", count);
    return 0;
}
