/* A read that must wait: from a pipe whose writer sleeps first. Nothing of the work is done by the trainer itself. */
#include <sys/wait.h>
#include <time.h>

#include "work.h"

static uint32_t answer;

int main(void)
{
    int ends[2];
    if (pipe(ends) != 0)
        return 1;
    pid_t child = fork();
    if (child == 0) {
        struct timespec nap = {0, 5000000};
        nanosleep(&nap, NULL);
        answer = getpid();
        return write(ends[1], &answer, sizeof answer) < 0;
    }

    virtuoso_output("rc:i32", &rc);
    virtuoso_output("answer:u32", &answer);
    virtuoso_begin("slowpipe");
    rc = read(ends[0], &answer, sizeof answer);
    virtuoso_end();

    waitpid(child, NULL, 0);
    printf("rc %d answer %u\n", rc, answer);
    return 0;
}
