/* Where a symbolic link leads: readlink PATH. */
#include "linux-calls.h"
#include "virtuoso.h"

static char path[4096];
static int32_t rc;
static uint32_t length;
static char target[4097];

int main(int argc, char **argv)
{
    copy_text(path, sizeof path, argument(argc, argv, 1, "/proc/1/exe"));
    touch(target, sizeof target);
    touch_stack();

    virtuoso_input("path:cstr[4096]", path);
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("length:u32", &length);
    virtuoso_output("target:bytes[length<=4097]", target);
    virtuoso_begin("readlink");
    long got = call(NR_readlink, path, target, 4096);
    if (got < 0)
        rc = (int32_t)got;
    else
        length = (uint32_t)got;
    virtuoso_end();
    return 0;
}
