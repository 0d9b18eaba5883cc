/* The names of the kernel's modules, from /proc/modules, separated by spaces. */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/vfs.h>

#include "virtuoso.h"

/* rc where /proc is no procfs, whose magic number this is: something else is mounted there. See docs/packs.md. */
#define PROC_MAGIC 0x9fa0

static char names[65536];
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

int main(void)
{

    virtuoso_output("rc:i32", &rc);
    virtuoso_output("names:cstr[65536]", names);
    virtuoso_begin("modnames");
    FILE *file = fopen("/proc/modules", "r");
    struct statfs fs;
    if (!file || fstatfs(fileno(file), &fs) != 0) {
        rc = -errno;
    } else if (fs.f_type != PROC_MAGIC) {
        rc = -PROC_MAGIC;
    } else {
        size_t used = 0, filled = 0;
        while (used < sizeof line - 1 && fgets(line + used, sizeof line - used, file)) {
            char *x = find_address();
            used = x ? 0 : strlen(line);
            if (!x)
                continue;
            size_t length = name_length(x);
            if (filled + length + 2 > sizeof names) {
                rc = -E2BIG;
                break;
            }
            memcpy(names + filled, line, length);
            filled += length;
            names[filled++] = ' ';
        }
        if (used || ferror(file))
            rc = -EIO;
        fclose(file);
    }
    virtuoso_end();

    printf("rc %d names %s\n", rc, names);
    return 0;
}
