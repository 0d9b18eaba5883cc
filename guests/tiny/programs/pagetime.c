/* The system's time, from the page on which the kernel shows it: no call is made. */
#include "program.h"
#include "virtuoso.h"

static uint32_t sec;
static uint32_t nsec;
static int32_t rc;

int main(uint32_t argument)
{
    const volatile uint32_t *time = (const volatile uint32_t *)TIME_PAGE;
    (void)argument;
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("sec:u32", &sec);
    virtuoso_output("nsec:u32", &nsec);
    virtuoso_begin("pagetime");
    do {
        sec = time[0];
        nsec = time[1];
    } while (sec != time[0]);
    rc = 0;
    virtuoso_end();

    print_number("pagetime: ", (int32_t)sec);
    print("\n");
    return 0;
}
