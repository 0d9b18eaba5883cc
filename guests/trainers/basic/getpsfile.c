/* The executable of a process: getpsfile PID. */
#include "linux-calls.h"
#include "virtuoso.h"

static uint32_t pid;
static int32_t rc;
static char path[4096];
static char link[32] = "/proc/";

/* Writes /proc/PID/exe. */
static void name_link(void)
{
    char digits[10];
    int length = 0, at = 6;
    uint32_t left = pid;
    do {
        digits[length++] = (char)('0' + left % 10);
        left /= 10;
    } while (left);
    while (length)
        link[at++] = digits[--length];
    for (const char *rest = "/exe"; *rest; rest++)
        link[at++] = *rest;
    link[at] = 0;
}

int main(int argc, char **argv)
{
    pid = (uint32_t)number_of(argument(argc, argv, 1, "1"));
    touch(path, sizeof path);
    touch_stack();

    virtuoso_input("pid:u32", &pid);
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("path:cstr[4096]", path);
    virtuoso_begin("getpsfile");
    /* rc: the path's length, or the negative error: a kernel thread has no executable (-ENOENT). */
    rc = procfs_error();
    if (rc == 0) {
        name_link();
        rc = (int32_t)call(NR_readlink, link, path, sizeof path - 1);
    }
    virtuoso_end();
    return 0;
}
