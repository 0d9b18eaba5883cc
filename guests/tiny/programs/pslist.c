/* All processes. */
#include "program.h"
#include "virtuoso.h"

static uint32_t pids[256];
static uint32_t count;
static int32_t rc;

int main(uint32_t argument)
{
    (void)argument;
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("count:u32", &count);
    virtuoso_output("pids:u32[count<=256]", pids);
    virtuoso_begin("pslist");
    rc = call(CALL_PROCESSES, (uint32_t)pids, 256, 0);
    count = rc < 0 ? 0 : (uint32_t)rc;
    virtuoso_end();

    print_number("pslist: ", rc);
    print("\n");
    return 0;
}
