/* All PIDs. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "procfs.h"
#include "virtuoso.h"

static uint32_t pids[65536];
static uint32_t count;
static int32_t rc;

int main(void)
{
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("count:u32", &count);
    virtuoso_output("pids:u32[count<=65536]", pids);
    virtuoso_begin("pslist");
    DIR *dir = opendir("/proc");
    struct statfs fs;
    rc = dir ? procfs_error(fstatfs(dirfd(dir), &fs), &fs) : -errno;
    if (rc == 0) {
        struct dirent *entry;
        errno = 0;
        while (count < 65536 && (entry = readdir(dir)))
            if (isdigit((unsigned char)entry->d_name[0]))
                pids[count++] = strtoul(entry->d_name, NULL, 10);
        rc = -errno;
        closedir(dir);
    }
    virtuoso_end();

    printf("rc %d count %u:", rc, count);
    for (uint32_t i = 0; i < count; i++)
        printf(" %u", pids[i]);
    printf("\n");
    return 0;
}
