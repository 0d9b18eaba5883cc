/* The base addresses of the kernel's modules. */
#define _GNU_SOURCE
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "procmodules.h"
#include "virtuoso.h"

static uint64_t bases[4096];
static uint32_t count;
static int32_t rc;

int main(void)
{
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("count:u32", &count);
    virtuoso_output("bases:u64[count<=4096]", bases);
    virtuoso_begin("lsmod");
    FILE *file = open_modules(&rc);
    if (file) {
        char *x;
        while (count < 4096 && (x = next_module(file, &rc)))
            bases[count++] = strtoull(x + 1, NULL, 16);
        fclose(file);
    }
    virtuoso_end();

    printf("rc %d count %u:", rc, count);
    for (uint32_t i = 0; i < count; i++)
        printf(" %" PRIx64, bases[i]);
    printf("\n");
    return 0;
}
