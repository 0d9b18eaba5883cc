/* Stands in for a container: new PID, mount, network, UTS and IPC namespaces with a few processes inside.
 * Usage: cell HOSTNAME PROGRAM...   The first program becomes PID 1 of the cell. */
#define _GNU_SOURCE
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    if (unshare(CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC) != 0)
        return 1;
    sethostname(argv[1], strlen(argv[1]));
    for (int i = 2; i < argc; i++) {
        if (fork() == 0) {
            if (i == 2)
                mount("proc", "/proc", "proc", 0, 0);
            execl(argv[i], argv[i], (char *)0);
            _exit(1);
        }
    }
    for (;;)
        pause();
}
