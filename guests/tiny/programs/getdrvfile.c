/* The name of a driver: the argument says which, counted from the list's beginning; past its end it is no driver. */
#include "program.h"
#include "virtuoso.h"

static uint32_t base;
static int32_t rc;
static char name[64];

int main(uint32_t argument)
{
    uint32_t bases[64];
    int32_t count = call(CALL_DRIVERS, (uint32_t)bases, 64, 0);
    base = (int32_t)argument < count ? bases[argument] : 0x1234;
    virtuoso_input("base:u32", &base);
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("name:cstr[64]", name);
    virtuoso_begin("getdrvfile");
    rc = call(CALL_DRIVER_NAME, base, (uint32_t)name, sizeof name);
    virtuoso_end();

    print_number("getdrvfile: ", rc);
    print(" ");
    print(name);
    print("\n");
    return 0;
}
