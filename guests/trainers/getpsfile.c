/* The executable of a process: getpsfile PID. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "procfs.h"
#include "virtuoso.h"

/* Not on the stack: there, their addresses would depend on the length of the arguments, and recordings could not be merged. */
static uint32_t pid;
static int32_t rc;
static char path[4096];

int main(int argc, char **argv)
{
    pid = argc > 1 ? strtoul(argv[1], NULL, 10) : 1;

    virtuoso_input("pid:u32", &pid);
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("path:cstr[4096]", path);
    virtuoso_begin("getpsfile");
    char link[32];
    snprintf(link, sizeof link, "/proc/%u/exe", pid);
    /* rc: the path's length, or the negative error: a kernel thread has no executable (-ENOENT). */
    struct statfs fs;
    rc = procfs_error(statfs("/proc", &fs), &fs);
    if (rc == 0 && (rc = readlink(link, path, sizeof path - 1)) < 0)
        rc = -errno;
    virtuoso_end();

    printf("pid %u rc %d path %s\n", pid, rc, path);
    return 0;
}
