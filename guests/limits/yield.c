/* Another process that wants the processor is scheduled in and back between the marks: both have one real-time priority. */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "work.h"

int main(void)
{
    int priority = 1;
    /* musl's own sched_setscheduler only says that POSIX wants something else. */
    if (syscall(SYS_sched_setscheduler, 0, SCHED_FIFO, &priority) != 0)
        return 1;
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
