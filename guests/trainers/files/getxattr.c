/* The value of one of a file's extended attributes: getxattr PATH NAME [VALUE]. A link's
 * own, not of what it leads to. With VALUE the file gets it before, so that training has something to find. */
#include "linux-calls.h"
#include "virtuoso.h"

#define MOST 65536

static char path[4096];
static char name[256];
static int32_t rc;
static uint32_t length;
static char value[MOST + 1];

int main(int argc, char **argv)
{
    copy_text(path, sizeof path, argument(argc, argv, 1, "/tmp"));
    copy_text(name, sizeof name, argument(argc, argv, 2, "user.name"));
    const char *new = argument(argc, argv, 3, "");
    if (*new)
        call(NR_lsetxattr, path, name, new, length_of(new), 0);
    touch_stack();

    virtuoso_input("path:cstr[4096]", path);
    virtuoso_input("name:cstr[256]", name);
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("length:u32", &length);
    virtuoso_output("value:bytes[length<=65537]", value);
    virtuoso_begin("getxattr");
    /* The kernel makes room for as much as it is asked for, so it is asked how much there is. */
    long got = call(NR_lgetxattr, path, name, 0, 0);
    if (got > 0)
        got = call(NR_lgetxattr, path, name, value, got < MOST ? got : MOST);
    if (got < 0)
        rc = (int32_t)got;
    else
        length = (uint32_t)got;
    virtuoso_end();
    return 0;
}
