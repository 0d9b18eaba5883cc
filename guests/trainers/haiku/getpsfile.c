/* The executable of a team: getpsfile TEAM. */
#include <OS.h>
#include <image.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "virtuoso.h"

/* Not on the stack: there, their addresses would depend on the length of the arguments, and recordings could not be merged. */
static uint32_t pid;
static int32_t rc;
static char path[256];

int main(int argc, char **argv)
{
    pid = argc > 1 ? strtoul(argv[1], NULL, 10) : 1;

    virtuoso_input("pid:u32", &pid);
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("path:cstr[256]", path);
    virtuoso_begin("getpsfile");
    /* rc: the path's length; -2, as on other systems, where no image of the team is an application (the kernel's has none); or the
     * negative error. */
    image_info image;
    int32 cookie = 0;
    int32 images = 0;
    status_t status;
    while ((status = get_next_image_info(pid, &cookie, &image)) == B_OK && image.type != B_APP_IMAGE)
        images++;
    if (status == B_OK)
        strlcpy(path, image.name, sizeof path);
    rc = status == B_OK ? (int32_t)strlen(path) : images > 0 ? -2 : status;
    virtuoso_end();

    printf("pid %u rc %d path %s\n", (unsigned)pid, (int)rc, path);
    return 0;
}
