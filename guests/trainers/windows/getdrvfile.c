/* The name of the driver at a base address: getdrvfile ADDRESS. */
#define PSAPI_VERSION 1
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <windows.h>
#include <psapi.h>

#include "virtuoso.h"

/* Not on the stack: there, their addresses would depend on the length of the arguments, and recordings could not be merged. */
static uint64_t base;
static int32_t rc;
static char name[64];

int main(int argc, char **argv)
{
    base = argc > 1 ? strtoull(argv[1], NULL, 16) : 0;

    virtuoso_input("base:u64", &base);
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("name:cstr[64]", name);
    virtuoso_begin("getdrvfile");
    /* rc: 0, or the negative error when no driver is there */
    if (GetDeviceDriverBaseNameA((LPVOID)(uintptr_t)base, name, sizeof name) == 0)
        rc = -(int32_t)GetLastError();
    virtuoso_end();

    printf("base %" PRIx64 " rc %d name %s\n", base, (int)rc, name);
    return 0;
}
