/* The trainer waits for a timer's signal, whose handler does the work. */
#include <signal.h>
#include <sys/time.h>

#include "work.h"

static volatile uint32_t alarms;

static void on_alarm(int signal)
{
    (void)signal;
    list_pids();
    alarms++;
}

int main(void)
{
    struct itimerval once = {{0, 0}, {0, 1000}};
    signal(SIGALRM, on_alarm);
    setitimer(ITIMER_REAL, &once, NULL);

    declare_pids();
    virtuoso_begin("waited");
    while (!alarms)
        ;
    virtuoso_end();

    return report_pids();
}
