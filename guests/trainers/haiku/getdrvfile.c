/* The file of the kernel add-on at a base address: getdrvfile ADDRESS. */
#include <OS.h>
#include <image.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "virtuoso.h"

/* Not on the stack: there, their addresses would depend on the length of the arguments, and recordings could not be merged. */
static uint64_t base;
static int32_t rc;
static char name[64];

int main(int argc, char **argv)
{
    base = argc > 1 ? strtoull(argv[1], NULL, 16) : 0;

    virtuoso_input("base:u64", &base);
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("name:cstr[64]", name);
    virtuoso_begin("getdrvfile");
    /* Team 1 is the kernel's. rc: 0, or the negative error when no add-on is there (B_BAD_VALUE) */
    image_info image;
    int32 cookie = 0;
    while ((rc = get_next_image_info(1, &cookie, &image)) == B_OK)
        if ((uintptr_t)image.text == base) {
            const char *slash = strrchr(image.name, '/');
            strlcpy(name, slash ? slash + 1 : image.name, sizeof name);
            break;
        }
    virtuoso_end();

    printf("base %" PRIx64 " rc %d name %s\n", base, (int)rc, name);
    return 0;
}
