/* All PIDs below a limit that can be sent a signal: pidprobe LIMIT. */
#include "linux-calls.h"
#include "virtuoso.h"

static uint32_t pids[65536];
static uint32_t count;
static uint32_t limit;

int main(int argc, char **argv)
{
    limit = (uint32_t)number_of(argument(argc, argv, 1, "1024"));
    touch_stack();

    virtuoso_input("limit:u32", &limit);
    virtuoso_output("count:u32", &count);
    virtuoso_output("pids:u32[count<=65536]", pids);
    virtuoso_begin("pidprobe");
    /* Signal 0 only asks; thread PID of process PID: threads other than the first are no processes. */
    for (uint32_t pid = 1; pid < limit && count < 65536; pid++) {
        long sent = call(NR_tgkill, pid, pid, 0);
        if (sent == 0 || sent == -EPERM)
            pids[count++] = pid;
    }
    virtuoso_end();
    return 0;
}
