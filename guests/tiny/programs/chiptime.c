/* The seconds that the clock chip shows: what no memory holds. */
#include "program.h"
#include "virtuoso.h"

static uint32_t sec;

int main(uint32_t argument)
{
    (void)argument;
    virtuoso_output("sec:u32", &sec);
    virtuoso_begin("chiptime");
    sec = (uint32_t)call(CALL_CHIP_SECONDS, 0, 0, 0);
    virtuoso_end();

    print_number("chiptime: ", (int32_t)sec);
    print("\n");
    return 0;
}
