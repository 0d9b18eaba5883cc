/* The base addresses of the kernel's modules. */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>

#include "virtuoso.h"

/* rc where /proc is no procfs, whose magic number this is: something else is mounted there. See docs/packs.md. */
#define PROC_MAGIC 0x9fa0

static uint64_t bases[4096];
static uint32_t count;
static int32_t rc;

/* A line is NAME SIZE USES USERS STATE ADDRESS [TAINTS]. A name may hold anything, spaces and line breaks too: what has no
 * address at its end goes on in the next line. */
static char line[8192];

/* The X of the address 0xADDRESS with which a line ends; NULL if the line goes on. */
static char *find_address(void)
{
    size_t length = strlen(line);
    char *x = memrchr(line, 'x', length);

    if (!x || x - line < 2 || x[-1] != '0' || x[-2] != ' ' || line[length - 1] != '\n')
        return NULL;
    return x;
}

int main(void)
{

    virtuoso_output("rc:i32", &rc);
    virtuoso_output("count:u32", &count);
    virtuoso_output("bases:u64[count<=4096]", bases);
    virtuoso_begin("lsmod");
    FILE *file = fopen("/proc/modules", "r");
    struct statfs fs;
    if (!file || fstatfs(fileno(file), &fs) != 0) {
        rc = -errno;
    } else if (fs.f_type != PROC_MAGIC) {
        rc = -PROC_MAGIC;
    } else {
        size_t used = 0;
        while (count < 4096 && used < sizeof line - 1 && fgets(line + used, sizeof line - used, file)) {
            char *x = find_address();
            used = x ? 0 : strlen(line);
            if (x)
                bases[count++] = strtoull(x + 1, NULL, 16);
        }
        if (used || ferror(file))
            rc = -EIO;
        fclose(file);
    }
    virtuoso_end();

    printf("rc %d count %u:", rc, count);
    for (uint32_t i = 0; i < count; i++)
        printf(" %" PRIx64, bases[i]);
    printf("\n");
    return 0;
}
