/* Another process does the work; pipes tell it to begin and bring back what it found. */
#include <sys/wait.h>

#include "work.h"

int main(void)
{
    int ask[2], answer[2];
    char go = 'g';
    if (pipe(ask) != 0 || pipe(answer) != 0)
        return 1;
    pid_t child = fork();
    if (child == 0) {
        if (read(ask[0], &go, 1) != 1)
            return 1;
        list_pids();
        return write(answer[1], &count, sizeof count) < 0 || write(answer[1], pids, count * sizeof *pids) < 0;
    }
    usleep(1000);

    declare_pids();
    virtuoso_begin("helper");
    rc = write(ask[1], &go, 1);
    if (rc == 1)
        rc = read(answer[0], &count, sizeof count);
    if (rc == sizeof count && count <= 4096)
        rc = read(answer[0], pids, count * sizeof *pids);
    virtuoso_end();

    waitpid(child, NULL, 0);
    return report_pids();
}
