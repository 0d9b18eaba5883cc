/* The executable of a process: getpsfile PID (FreeBSD). */
#include <sys/types.h>
#include <sys/sysctl.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "virtuoso.h"

/* Not on the stack: there, their addresses would depend on the length of the arguments, and recordings could not be merged. */
static uint32_t pid;
static int32_t rc;
static char path[256];

int main(int argc, char **argv)
{
    pid = argc > 1 ? strtoul(argv[1], NULL, 10) : 1;

    virtuoso_input("pid:u32", &pid);
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("path:cstr[256]", path);
    virtuoso_begin("getpsfile");
    /* rc: the path's length with its NUL (0: a kernel process has none), or the negative error. */
    int mib[] = {CTL_KERN, KERN_PROC, KERN_PROC_PATHNAME, (int)pid};
    size_t size = sizeof path;
    rc = sysctl(mib, 4, path, &size, NULL, 0) == 0 ? (int32_t)size : -errno;
    virtuoso_end();

    printf("pid %u rc %d path %s\n", pid, rc, path);
    return 0;
}
