/* Another process that wants the processor is scheduled in and back between the marks. */
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>

#include "work.h"

int main(void)
{
    pid_t child = fork();
    if (child == 0)
        for (;;)
            sched_yield();
    sched_yield();

    declare_pids();
    virtuoso_begin("yield");
    sched_yield();
    list_pids();
    sched_yield();
    virtuoso_end();

    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    return report_pids();
}
