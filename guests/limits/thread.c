/* Another thread does the work; a futex tells it to begin and the trainer that it is done. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sys/syscall.h>

#include "work.h"

/* As in <linux/futex.h>, which musl does not have. */
enum { FUTEX_WAIT, FUTEX_WAKE };

static uint32_t go, done;

static void wait_for(uint32_t *word)
{
    while (!__atomic_load_n(word, __ATOMIC_ACQUIRE))
        syscall(SYS_futex, word, FUTEX_WAIT, 0, NULL, NULL, 0);
}

static void tell(uint32_t *word)
{
    __atomic_store_n(word, 1, __ATOMIC_RELEASE);
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void *help(void *unused)
{
    wait_for(&go);
    list_pids();
    tell(&done);
    return unused;
}

int main(void)
{
    pthread_t helper;
    if (pthread_create(&helper, NULL, help, NULL) != 0)
        return 1;
    usleep(1000);

    declare_pids();
    virtuoso_begin("thread");
    tell(&go);
    wait_for(&done);
    virtuoso_end();

    pthread_join(helper, NULL);
    return report_pids();
}
