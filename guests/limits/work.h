/* What the trainers of this folder have in common: work whose right answer the target's /proc tells.
 *
 * Each trainer shows one thing that the method of 2011 could not follow, see docs/limits.md. */
#ifndef WORK_H
#define WORK_H

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "virtuoso.h"

static uint32_t pids[4096];
static uint32_t count;
static int32_t rc;

/* All PIDs. */
static __attribute__((unused, noinline)) void list_pids(void)
{
    DIR *dir = opendir("/proc");
    if (!dir) {
        rc = -errno;
        return;
    }
    struct dirent *entry;
    while ((entry = readdir(dir)) && count < 4096)
        if (isdigit((unsigned char)entry->d_name[0]))
            pids[count++] = strtoul(entry->d_name, NULL, 10);
    closedir(dir);
}

static __attribute__((unused)) void declare_pids(void)
{
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("count:u32", &count);
    virtuoso_output("pids:u32[count<=4096]", pids);
}

static __attribute__((unused)) int report_pids(void)
{
    printf("rc %d count %u\n", rc, count);
    return 0;
}

/* The start of a file; rc is its length or the negative error. */
static char text[64];

static __attribute__((unused, noinline)) void read_text(const char *path, int flags)
{
    static char buffer[4096] __attribute__((aligned(4096)));
    int fd = open(path, O_RDONLY | flags);
    rc = fd < 0 ? -errno : read(fd, buffer, sizeof buffer);
    if (fd >= 0 && rc < 0)
        rc = -errno;
    if (rc > 0)
        memcpy(text, buffer, rc < (int32_t)sizeof text ? rc : (int32_t)sizeof text - 1);
    if (fd >= 0)
        close(fd);
}

static __attribute__((unused)) void declare_text(void)
{
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("text:cstr[64]", text);
}

static __attribute__((unused)) int report_text(void)
{
    printf("rc %d text %s\n", rc, text);
    return 0;
}

#endif
