/* The base addresses of the kernel and its modules (FreeBSD). */
#include <sys/param.h>
#include <sys/linker.h>
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
    /* rc: 0, or the negative error */
    int file = 0;
    while (count < 256 && (file = kldnext(file)) > 0) {
        struct kld_file_stat stat = {.version = sizeof stat};
        if (kldstat(file, &stat) == 0)
            bases[count++] = (uintptr_t)stat.address;
        else
            rc = -errno;
    }
    if (file < 0)
        rc = -errno;
    virtuoso_end();

    printf("rc %d count %u:", rc, count);
    for (uint32_t i = 0; i < count; i++)
        printf(" %" PRIx64, bases[i]);
    printf("\n");
    return 0;
}
