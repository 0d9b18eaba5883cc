/* The end mark is executed by another thread than the begin mark. */
#include <pthread.h>

#include "work.h"

static void *work(void *unused)
{
    list_pids();
    virtuoso_end();
    return unused;
}

int main(void)
{
    pthread_t thread;

    declare_pids();
    virtuoso_begin("others");
    if (pthread_create(&thread, NULL, work, NULL) == 0)
        pthread_join(thread, NULL);
    return report_pids();
}
