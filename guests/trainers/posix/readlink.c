/* Where a symbolic link leads: readlink PATH. As guests/trainers/files/readlink.c. */
#include "paths.h"

#include <unistd.h>

#include "virtuoso.h"

static uint32_t length;
static char target[4097];

int main(int argc, char **argv)
{
    choose_path(argc, argv, "/bin/sh");

    virtuoso_input("path:cstr[4096]", path);
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("length:u32", &length);
    virtuoso_output("target:bytes[length<=4097]", target);
    virtuoso_begin("readlink");
    ssize_t got = readlink(path, target, sizeof target - 1);
    if (got < 0)
        rc = -errno;
    else
        length = (uint32_t)got;
    virtuoso_end();
    return 0;
}
