/* The PID of the running process. */
#include "linux-calls.h"
#include "virtuoso.h"

static uint32_t pid;

int main(UNUSED int argc, UNUSED char **argv)
{
    touch_stack();
    virtuoso_output("pid:u32", &pid);
    virtuoso_begin("getpid");
    pid = (uint32_t)call(NR_getpid, 0);
    virtuoso_end();
    return 0;
}
