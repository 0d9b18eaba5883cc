/* Waits until the system's time is another: an interrupt comes while it is recorded, and none comes in a run. */
#include "program.h"
#include "virtuoso.h"

static uint32_t nsec;

int main(uint32_t argument)
{
    uint32_t first[2] = {0, 0}, time[2] = {0, 0};
    (void)argument;
    virtuoso_output("nsec:u32", &nsec);
    virtuoso_begin("nexttick");
    call(CALL_TIME, (uint32_t)first, 0, 0);
    do {
        for (volatile int i = 0; i < 100; i++)
            ;
        call(CALL_TIME, (uint32_t)time, 0, 0);
    } while (time[1] == first[1]);
    nsec = time[1];
    virtuoso_end();

    print_number("nexttick: ", (int32_t)nsec);
    print("\n");
    return 0;
}
