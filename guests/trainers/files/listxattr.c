/* The names of a file's extended attributes, each with a NUL behind it: listxattr PATH [NAME]. A link's own,
 * not of what it leads to. With NAME the file gets that one before, so that training has something to find. */
#include "linux-calls.h"
#include "virtuoso.h"

#define MOST 65536

static char path[4096];
static int32_t rc;
static uint32_t used;
static char names[MOST + 1];

int main(int argc, char **argv)
{
    copy_text(path, sizeof path, argument(argc, argv, 1, "/tmp"));
    const char *new = argument(argc, argv, 2, "");
    if (*new)
        call(NR_lsetxattr, path, new, "value", 5, 0);
    touch_stack();

    virtuoso_input("path:cstr[4096]", path);
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("used:u32", &used);
    virtuoso_output("names:bytes[used<=65537]", names);
    virtuoso_begin("listxattr");
    /* The kernel makes room for as much as it is asked for, so it is asked how much there is. */
    long got = call(NR_llistxattr, path, 0, 0);
    if (got > 0)
        got = call(NR_llistxattr, path, names, got < MOST ? got : MOST);
    if (got < 0)
        rc = (int32_t)got;
    else
        used = (uint32_t)got;
    virtuoso_end();
    return 0;
}
