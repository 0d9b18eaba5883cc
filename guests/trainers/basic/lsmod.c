/* The base addresses of the kernel's modules. */
#include "procmodules.h"
#include "virtuoso.h"

static uint64_t bases[4096];
static uint32_t count;
static int32_t rc;

int main(UNUSED int argc, UNUSED char **argv)
{
    touch_modules();

    virtuoso_output("rc:i32", &rc);
    virtuoso_output("count:u32", &count);
    virtuoso_output("bases:u64[count<=4096]", bases);
    virtuoso_begin("lsmod");
    int file = open_modules();
    rc = file < 0 ? file : 0;
    if (rc == 0) {
        size_t x;
        while (count < 4096 && (x = next_module(file, &rc)))
            bases[count++] = number_of(line + x - 1);
        call(NR_close, file);
    }
    virtuoso_end();
    return 0;
}
