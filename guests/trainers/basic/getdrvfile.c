/* The name of the kernel module at a base address: getdrvfile ADDRESS. */
#include "procmodules.h"
#include "virtuoso.h"

static uint64_t base;
static int32_t rc;
static char name[4096];

int main(int argc, char **argv)
{
    base = number_of(argument(argc, argv, 1, "0x0"));
    touch(name, sizeof name);
    touch_modules();

    virtuoso_input("base:u64", &base);
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("name:cstr[4096]", name);
    virtuoso_begin("getdrvfile");
    int file = open_modules();
    /* rc: 0, or -ENOENT when no module is there */
    rc = file < 0 ? file : -ENOENT;
    if (file >= 0) {
        size_t x;
        int32_t failed = 0;
        while (rc && (x = next_module(file, &failed))) {
            if (number_of(line + x - 1) != base)
                continue;
            size_t length = name_length(x);
            line[length] = 0;
            copy_text(name, sizeof name, line);
            rc = 0;
        }
        if (rc && failed)
            rc = failed;
        call(NR_close, file);
    }
    virtuoso_end();
    return 0;
}
