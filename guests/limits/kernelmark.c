/* The end mark is executed by the kernel, in a module that serves a write: kernelmark, or (kernelmark NAME) the begin mark too. */
#include "work.h"

int main(int argc, char **argv)
{
    int fd = open("/proc/marks", O_WRONLY);
    if (fd < 0) {
        perror("kernelmark");
        return 1;
    }
    declare_pids();
    if (argc > 1) {
        if (write(fd, argv[1], strlen(argv[1])) < 0)
            return 1;
        list_pids();
        virtuoso_end();
    } else {
        virtuoso_begin("kernelmark");
        list_pids();
        if (write(fd, "", 1) < 0)
            return 1;
    }
    return report_pids();
}
