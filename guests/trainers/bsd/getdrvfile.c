/* The name of the kernel module at a base address: getdrvfile ADDRESS (FreeBSD). */
#include <sys/param.h>
#include <sys/linker.h>
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
    /* rc: 0, or -ENOENT when no module is there */
    rc = -ENOENT;
    int file = 0;
    while (rc && (file = kldnext(file)) > 0) {
        struct kld_file_stat stat = {.version = sizeof stat};
        if (kldstat(file, &stat) == 0 && (uintptr_t)stat.address == base) {
            strlcpy(name, stat.name, sizeof name);
            rc = 0;
        }
    }
    virtuoso_end();

    printf("base %" PRIx64 " rc %d name %s\n", base, rc, name);
    return 0;
}
