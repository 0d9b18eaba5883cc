/* The trainer waits for a timer's signal, whose handler writes to an output. */
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
    struct itimerval once = {{0, 0}, {0, 1000}};
    signal(SIGALRM, on_alarm);

    declare_pids();
    virtuoso_output("alarms:u32", (void *)&alarms);
    virtuoso_begin("waited");
    setitimer(ITIMER_REAL, &once, NULL);
    while (!alarms)
        ;
    list_pids();
    virtuoso_end();

    return report_pids();
}
