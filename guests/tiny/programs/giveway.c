/* Lets others run and comes back: a switch between processes is recorded. */
#include "program.h"
#include "virtuoso.h"

static uint32_t pid;

int main(uint32_t argument)
{
    (void)argument;
    virtuoso_output("pid:u32", &pid);
    virtuoso_begin("giveway");
    call(CALL_YIELD, 0, 0, 0);
    pid = (uint32_t)call(CALL_GETPID, 0, 0, 0);
    virtuoso_end();

    print_number("giveway: ", (int32_t)pid);
    print("\n");
    return 0;
}
