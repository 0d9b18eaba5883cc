/* A process that is started between the marks writes into its own copy of an output: the trainer must not see that. */
#include <sys/wait.h>

#include "work.h"

int main(void)
{
    declare_pids();
    virtuoso_begin("forked");
    pid_t child = fork();
    if (child == 0) {
        pids[count++] = 4000000000u;
        _exit(0);
    }
    rc = child < 0 ? -errno : 0;
    if (child > 0)
        waitpid(child, NULL, 0);
    list_pids();
    virtuoso_end();

    return report_pids();
}
