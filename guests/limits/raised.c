/* The trainer sends itself a signal, and the handler does the work. */
#include <signal.h>

#include "work.h"

static void on_signal(int signal)
{
    (void)signal;
    list_pids();
}

int main(void)
{
    signal(SIGUSR1, on_signal);

    declare_pids();
    virtuoso_begin("raised");
    kill(getpid(), SIGUSR1);
    virtuoso_end();

    return report_pids();
}
