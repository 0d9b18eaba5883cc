/* /proc/modules, module by module. Define _GNU_SOURCE before anything is included. */
#ifndef PROCMODULES_H
#define PROCMODULES_H

#include <ctype.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "procfs.h"

/* A line is NAME SIZE USES USERS STATE ADDRESS [TAINTS]. A name may hold anything, spaces and line breaks too: what has no
 * address at its end goes on in the next line. Not on the stack, where recordings could not be merged. */
static char line[8192];

/* The open file; NULL, with the error in rc, if it cannot be read or is not procfs's. */
static inline FILE *open_modules(int32_t *rc)
{
    FILE *file = fopen("/proc/modules", "r");
    struct statfs fs;

    *rc = file ? procfs_error(fstatfs(fileno(file), &fs), &fs) : -errno;
    return *rc ? NULL : file;
}

/* The X of the address 0xADDRESS with which a line ends; NULL if the line goes on. */
static inline char *find_address(void)
{
    size_t length = strlen(line);
    char *x = memrchr(line, 'x', length);

    if (!x || x - line < 2 || x[-1] != '0' || x[-2] != ' ' || line[length - 1] != '\n')
        return NULL;
    return x;
}

/* Reads the next module into `line`: the X of its address. NULL at the end, with -EIO in rc if the file was not read whole. */
static inline char *next_module(FILE *file, int32_t *rc)
{
    size_t used = 0;

    while (used < sizeof line - 1 && fgets(line + used, sizeof line - used, file)) {
        char *x = find_address();
        if (x)
            return x;
        used = strlen(line);
    }
    if (used || ferror(file))
        *rc = -EIO;
    return NULL;
}

static inline const char *skip_number(const char *at)
{
    while (isdigit((unsigned char)*at) || *at == '-')
        at++;
    return at;
}

/* How long the name is: up to the last place from which SIZE and USES, two numbers, are followed by USERS and STATE. */
static inline size_t name_length(const char *x)
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

#endif
