/* A timer's signal arrives between the marks, somewhere in the work; its handler writes to no output. */
#include <signal.h>
#include <sys/time.h>

#include "work.h"

static volatile uint32_t alarms;

static void on_alarm(int signal)
{
    (void)signal;
    alarms++;
}

int main(void)
{
    struct itimerval every = {{0, 100}, {0, 100}};
    signal(SIGALRM, on_alarm);
    setitimer(ITIMER_REAL, &every, NULL);

    declare_pids();
    virtuoso_begin("alarmed");
    list_pids();
    virtuoso_end();

    every.it_value.tv_usec = 0;
    setitimer(ITIMER_REAL, &every, NULL);
    printf("alarms %u ", alarms);
    return report_pids();
}
