/* The base addresses of the kernel and its add-ons. */
#include <OS.h>
#include <image.h>
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
    /* Team 1 is the kernel's. The last call says B_BAD_VALUE; rc: 0, or another error */
    image_info image;
    int32 cookie = 0;
    status_t status = B_OK;
    while (count < 256 && (status = get_next_image_info(1, &cookie, &image)) == B_OK)
        bases[count++] = (uintptr_t)image.text;
    rc = status == B_BAD_VALUE ? 0 : status;
    virtuoso_end();

    printf("rc %d count %u:", (int)rc, (unsigned)count);
    for (uint32_t i = 0; i < count; i++)
        printf(" %" PRIx64, bases[i]);
    printf("\n");
    return 0;
}
