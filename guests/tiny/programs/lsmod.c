/* The addresses of all drivers. */
#include "program.h"
#include "virtuoso.h"

static uint32_t bases[64];
static uint32_t count;
static int32_t rc;

int main(uint32_t argument)
{
    (void)argument;
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("count:u32", &count);
    virtuoso_output("bases:u32[count<=64]", bases);
    virtuoso_begin("lsmod");
    rc = call(CALL_DRIVERS, (uint32_t)bases, 64, 0);
    count = rc < 0 ? 0 : (uint32_t)rc;
    virtuoso_end();

    print_number("lsmod: ", rc);
    print("\n");
    return 0;
}
