/* The system's time, asked for through the call gate. */
#include "program.h"
#include "virtuoso.h"

static uint32_t sec;
static uint32_t nsec;
static int32_t rc;

int main(uint32_t argument)
{
    uint32_t time[2] = {0, 0};
    (void)argument;
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("sec:u32", &sec);
    virtuoso_output("nsec:u32", &nsec);
    virtuoso_begin("gettime");
    rc = far_call(CALL_TIME, (uint32_t)time, 0, 0);
    sec = time[0];
    nsec = time[1];
    virtuoso_end();

    print_number("gettime: ", (int32_t)sec);
    print("\n");
    return 0;
}
