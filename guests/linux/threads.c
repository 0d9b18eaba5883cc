/* A process with many threads: threads COUNT. */
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

static void *wait_for_ever(void *unused)
{
    for (;;)
        pause();
    return unused;
}

int main(int argc, char **argv)
{
    pthread_attr_t small;
    pthread_t thread;

    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 16384);
    for (int left = argc > 1 ? atoi(argv[1]) : 300; left > 1; left--)
        if (pthread_create(&thread, &small, wait_for_ever, 0) != 0)
            return 1;
    for (;;)
        pause();
}
