/* The names of the kernel's modules, from /proc/modules, separated by spaces. */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "virtuoso.h"

static char names[8192];
static int32_t rc;

int main(void)
{

    virtuoso_output("rc:i32", &rc);
    virtuoso_output("names:cstr[8192]", names);
    virtuoso_begin("modnames");
    FILE *file = fopen("/proc/modules", "r");
    if (file) {
        char line[512], module[64];
        while (fgets(line, sizeof line, file))
            if (sscanf(line, "%63s", module) == 1 && strlen(names) + strlen(module) + 2 < sizeof names) {
                strcat(names, module);
                strcat(names, " ");
            }
        fclose(file);
    } else {
        rc = -errno;
    }
    virtuoso_end();

    printf("rc %d names %s\n", rc, names);
    return 0;
}
