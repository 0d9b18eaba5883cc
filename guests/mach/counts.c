/* How many tasks and threads there are: processor_set_info of the default processor set, which needs no privilege. */
#include "mach.h"
#include "virtuoso.h"

enum { BASIC_INFO = 1 };

static int rc;
static unsigned tasks, threads;

void program(int count, char **words)
{
    (void)count, (void)words;
    int reply[16], question[2] = {BASIC_INFO, 5};
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("tasks:u32", &tasks);
    virtuoso_output("threads:u32", &threads);
    /* Let the others begin. */
    rest(500);
    virtuoso_begin("counts");
    rc = ask(host_self(), PROCESSOR_SET_DEFAULT, 0, 0, reply, 3);
    if (!rc)
        rc = ask(reply[2], PROCESSOR_SET_INFO, 2, question, reply, 9);
    tasks = reply[5];
    threads = reply[6];
    virtuoso_end();
    print_number("rc", rc);
    print_number("tasks", tasks);
    print_number("threads", threads);
}
