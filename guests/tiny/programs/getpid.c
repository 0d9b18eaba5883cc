/* The process that runs. */
#include "program.h"
#include "virtuoso.h"

static uint32_t pid;

int main(uint32_t argument)
{
    (void)argument;
    virtuoso_output("pid:u32", &pid);
    virtuoso_begin("getpid");
    pid = (uint32_t)call(CALL_GETPID, 0, 0, 0);
    virtuoso_end();

    print_number("getpid: ", (int32_t)pid);
    print("\n");
    return 0;
}
