/* The names of the kernel's modules, from /proc/modules, separated by spaces. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "procmodules.h"
#include "virtuoso.h"

static char names[65536];
static int32_t rc;

int main(void)
{
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("names:cstr[65536]", names);
    virtuoso_begin("modnames");
    FILE *file = open_modules(&rc);
    if (file) {
        size_t filled = 0;
        char *x;
        while ((x = next_module(file, &rc))) {
            size_t length = name_length(x);
            if (filled + length + 2 > sizeof names) {
                rc = -E2BIG;
                break;
            }
            memcpy(names + filled, line, length);
            filled += length;
            names[filled++] = ' ';
        }
        fclose(file);
    }
    virtuoso_end();

    printf("rc %d names %s\n", rc, names);
    return 0;
}
