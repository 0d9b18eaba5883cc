/* The work is done under a mutex that nobody else wants. */
#include <pthread.h>

#include "work.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

int main(void)
{
    declare_pids();
    virtuoso_begin("mutex");
    pthread_mutex_lock(&mutex);
    list_pids();
    pthread_mutex_unlock(&mutex);
    virtuoso_end();

    return report_pids();
}
