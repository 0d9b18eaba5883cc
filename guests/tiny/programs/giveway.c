/* Lets others run so many times, then says who it is: a switch between processes is recorded, or asked for in a run. */
#include "program.h"
#include "virtuoso.h"

static uint32_t times;
static uint32_t pid;

int main(uint32_t argument)
{
    times = argument;
    virtuoso_input("times:u32", &times);
    virtuoso_output("pid:u32", &pid);
    virtuoso_begin("giveway");
    for (uint32_t i = 0; i < times; i++)
        call(CALL_YIELD, 0, 0, 0);
    pid = (uint32_t)call(CALL_GETPID, 0, 0, 0);
    virtuoso_end();

    print_number("giveway: ", (int32_t)pid);
    print("\n");
    return 0;
}
