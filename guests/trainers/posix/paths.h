/* What the file programs of this folder have in common: a path of the command line in memory of the program's own.
 *
 * They ask what guests/trainers/files asks, with the same inputs and outputs, by POSIX calls only, for systems that have those and
 * are not Linux: with the four of them in a pack `virtuoso ls`, `cat`, `stat`, `cp` and `mount` work on such a system's dumps. */
#ifndef PATHS_H
#define PATHS_H

/* C libraries hide what is not of the C standard, and offsets of 64 bits. */
#define _DEFAULT_SOURCE
#define _FILE_OFFSET_BITS 64

#include <errno.h>
#include <stdint.h>
#include <string.h>

static char path[4096];
static int32_t rc;

/* The path is the first argument, or this. A run may find another one there, as long as the array. */
static void choose_path(int argc, char **argv, const char *otherwise)
{
    strncpy(path, argc > 1 ? argv[1] : otherwise, sizeof path - 1);
}

#endif
