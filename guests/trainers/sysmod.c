/* The names of the kernel's modules, from /sys/module, separated by spaces. What is built in has no "initstate" there. */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "virtuoso.h"

static char names[65536];
static int32_t rc;

int main(void)
{

    virtuoso_output("rc:i32", &rc);
    virtuoso_output("names:cstr[65536]", names);
    virtuoso_begin("sysmod");
    DIR *dir = opendir("/sys/module");
    if (dir) {
        struct dirent *entry;
        size_t filled = 0;
        while (errno = 0, (entry = readdir(dir))) {
            char path[320];
            snprintf(path, sizeof path, "/sys/module/%s/initstate", entry->d_name);
            if (access(path, F_OK) != 0)
                continue;
            size_t length = strlen(entry->d_name);
            if (filled + length + 2 > sizeof names) {
                errno = E2BIG;
                break;
            }
            memcpy(names + filled, entry->d_name, length);
            filled += length;
            names[filled++] = ' ';
        }
        rc = -errno;
        closedir(dir);
    } else {
        rc = -errno;
    }
    virtuoso_end();

    printf("rc %d names %s\n", rc, names);
    return 0;
}
