/* The name of the kernel module at a base address: getdrvfile ADDRESS. */
#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
    rc = -ENOENT;
    FILE *file = fopen("/proc/modules", "r");
    if (file) {
        /* NAME SIZE USES USERS STATE ADDRESS; rc: 0, or -ENOENT when no module is there */
        char line[512], module[64];
        uint64_t address;
        while (rc && fgets(line, sizeof line, file))
            if (sscanf(line, "%63s %*s %*s %*s %*s %" SCNx64, module, &address) == 2 && address == base) {
                strcpy(name, module);
                rc = 0;
            }
        fclose(file);
    } else {
        rc = -errno;
    }
    virtuoso_end();

    printf("base %" PRIx64 " rc %d name %s\n", base, rc, name);
    return 0;
}
