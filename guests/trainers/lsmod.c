/* The base addresses of the kernel's modules. */
#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>

#include "virtuoso.h"

static uint64_t bases[256];
static uint32_t count;
static int32_t rc;

int main(void)
{

    virtuoso_output("rc:i32", &rc);
    virtuoso_output("count:u32", &count);
    virtuoso_output("bases:u64[count<=256]", bases);
    virtuoso_begin("lsmod");
    FILE *file = fopen("/proc/modules", "r");
    if (file) {
        /* NAME SIZE USES USERS STATE ADDRESS */
        char line[512];
        while (fgets(line, sizeof line, file) && count < 256)
            if (sscanf(line, "%*s %*s %*s %*s %*s %" SCNx64, &bases[count]) == 1)
                count++;
        fclose(file);
    } else {
        rc = -errno;
    }
    virtuoso_end();

    printf("rc %d count %u:", rc, count);
    for (uint32_t i = 0; i < count; i++)
        printf(" %" PRIx64, bases[i]);
    printf("\n");
    return 0;
}
