/* The time: host_get_time. */
#include "mach.h"
#include "virtuoso.h"

static int rc;
static unsigned sec, usec;

void program(int count, char **words)
{
    (void)count, (void)words;
    int reply[4];
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("sec:u32", &sec);
    virtuoso_output("usec:u32", &usec);
    /* Let the others begin. */
    rest(500);
    virtuoso_begin("gettime");
    rc = ask(host_self(), HOST_GET_TIME, 0, 0, reply, 4);
    sec = reply[2];
    usec = reply[3];
    virtuoso_end();
    print_number("rc", rc);
    print_number("sec", sec);
    print_number("usec", usec);
}
