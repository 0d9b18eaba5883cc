/* The trainer sleeps between the marks: the processor idles and a timer wakes the trainer. */
#include <time.h>

#include "work.h"

int main(void)
{
    struct timespec nap = {0, 5000000};

    declare_pids();
    virtuoso_begin("sleeper");
    nanosleep(&nap, NULL);
    list_pids();
    virtuoso_end();

    return report_pids();
}
