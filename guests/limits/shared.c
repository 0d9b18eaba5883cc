/* Another process does the work, in memory that both have. */
#include <sys/mman.h>
#include <sys/wait.h>

#include "work.h"

struct shared {
    volatile uint32_t go, done, count;
    uint32_t pids[1024];
};

int main(void)
{
    struct shared *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return 1;
    shared->pids[0] = 0;
    pid_t child = fork();
    if (child == 0) {
        while (!shared->go)
            usleep(1000);
        list_pids();
        for (uint32_t i = 0; i < count && i < 1024; i++)
            shared->pids[i] = pids[i];
        shared->count = count;
        shared->done = 1;
        _exit(0);
    }
    usleep(2000);

    virtuoso_output("rc:i32", &rc);
    virtuoso_output("count:u32", (void *)&shared->count);
    virtuoso_output("pids:u32[count<=1024]", shared->pids);
    virtuoso_begin("shared");
    shared->go = 1;
    usleep(20000);
    rc = 0;
    virtuoso_end();

    printf("rc %d done %u count %u\n", rc, shared->done, shared->count);
    waitpid(child, NULL, 0);
    return 0;
}
