/* The executable of a process: getpsfile PID. */
#define PSAPI_VERSION 1
#define _WIN32_WINNT 0x0600
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <windows.h>
#include <psapi.h>

#include "virtuoso.h"

/* Not on the stack: there, their addresses would depend on the length of the arguments, and recordings could not be merged. */
static uint32_t pid;
static int32_t rc;
static char path[256];

int main(int argc, char **argv)
{
    pid = argc > 1 ? strtoul(argv[1], NULL, 10) : 4;

    virtuoso_input("pid:u32", &pid);
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("path:cstr[256]", path);
    virtuoso_begin("getpsfile");
    /* rc: the path's length, or the negative error. The right to ask is one that Windows 2000 and XP do not have. */
    HANDLE process = OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, FALSE, pid);
    rc = process ? GetProcessImageFileNameA(process, path, sizeof path) : 0;
    if (rc == 0)
        rc = -(int32_t)GetLastError();
    if (process)
        CloseHandle(process);
    virtuoso_end();

    printf("pid %u rc %d path %s\n", (unsigned)pid, (int)rc, path);
    return 0;
}
