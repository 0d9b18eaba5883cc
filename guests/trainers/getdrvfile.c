/* The name of the kernel module at a base address: getdrvfile ADDRESS. */
#define _GNU_SOURCE
#include <ctype.h>
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

/* Not on the stack: there, their addresses would depend on the length of the arguments, and recordings could not be merged. */
static uint64_t base;
static int32_t rc;
static char name[4096];

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

static const char *skip_number(const char *at)
{
    while (isdigit((unsigned char)*at) || *at == '-')
        at++;
    return at;
}

/* How long the name is: up to the last place from which SIZE and USES, two numbers, are followed by USERS and STATE. */
static size_t name_length(const char *x)
{
    size_t length = strcspn(line, " ");
    const char *state = memrchr(line, ' ', x - 2 - line);

    for (const char *at = line; state && at < state; at++) {
        const char *size = at + 1, *uses = skip_number(size) + 1, *users = skip_number(uses) + 1;
        if (*at == ' ' && uses - 1 > size && uses[-1] == ' ' && users - 1 > uses && users[-1] == ' ' && users <= state)
            length = at - line;
    }
    return length;
}

int main(int argc, char **argv)
{
    base = argc > 1 ? strtoull(argv[1], NULL, 16) : 0;

    virtuoso_input("base:u64", &base);
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("name:cstr[4096]", name);
    virtuoso_begin("getdrvfile");
    /* rc: 0, or -ENOENT when no module is there */
    rc = -ENOENT;
    FILE *file = fopen("/proc/modules", "r");
    struct statfs fs;
    if (!file || fstatfs(fileno(file), &fs) != 0) {
        rc = -errno;
    } else if (fs.f_type != PROC_MAGIC) {
        rc = -PROC_MAGIC;
    } else {
        size_t used = 0;
        while (rc && used < sizeof line - 1 && fgets(line + used, sizeof line - used, file)) {
            char *x = find_address();
            used = x ? 0 : strlen(line);
            if (!x)
                continue;
            size_t length = name_length(x);
            if (strtoull(x + 1, NULL, 16) == base) {
                memcpy(name, line, length < sizeof name ? length : sizeof name - 1);
                rc = 0;
            }
        }
        if (used || ferror(file))
            rc = -EIO;
        fclose(file);
    }
    virtuoso_end();

    printf("base %" PRIx64 " rc %d name %s\n", base, rc, name);
    return 0;
}
