/* The same from a page that the kernel reaches through a pointer: nothing tells where that is in another boot. */
#include "program.h"
#include "virtuoso.h"

static uint32_t sec;
static uint32_t nsec;
static int32_t rc;

int main(uint32_t argument)
{
    const volatile uint32_t *time = (const volatile uint32_t *)FOUND_TIME_PAGE;
    (void)argument;
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("sec:u32", &sec);
    virtuoso_output("nsec:u32", &nsec);
    virtuoso_begin("foundtime");
    do {
        sec = time[0];
        nsec = time[1];
    } while (sec != time[0]);
    rc = 0;
    virtuoso_end();

    print_number("foundtime: ", (int32_t)sec);
    print("\n");
    return 0;
}
