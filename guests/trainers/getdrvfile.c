/* The name of the kernel module at a base address: getdrvfile ADDRESS. */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "procmodules.h"
#include "virtuoso.h"

/* Not on the stack: there, their addresses would depend on the length of the arguments, and recordings could not be merged. */
static uint64_t base;
static int32_t rc;
static char name[4096];

int main(int argc, char **argv)
{
    base = argc > 1 ? strtoull(argv[1], NULL, 16) : 0;

    virtuoso_input("base:u64", &base);
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("name:cstr[4096]", name);
    virtuoso_begin("getdrvfile");
    FILE *file = open_modules(&rc);
    if (file) {
        /* rc: 0, or -ENOENT when no module is there */
        rc = -ENOENT;
        char *x;
        while (rc && (x = next_module(file, &rc))) {
            size_t length = name_length(x);
            if (strtoull(x + 1, NULL, 16) == base) {
                memcpy(name, line, length < sizeof name ? length : sizeof name - 1);
                rc = 0;
            }
        }
        fclose(file);
    }
    virtuoso_end();

    printf("base %" PRIx64 " rc %d name %s\n", base, rc, name);
    return 0;
}
