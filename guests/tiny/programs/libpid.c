/* The process that runs, as a C library may say it: asked for once, then remembered. */
#include "library.h"
#include "virtuoso.h"

static uint32_t pid;
static int32_t rc;

int main(uint32_t argument)
{
    (void)argument;
    library_getpid();
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("pid:u32", &pid);
    virtuoso_begin("libpid");
    pid = library_getpid();
    rc = 0;
    virtuoso_end();

    print_number("libpid: ", (int32_t)pid);
    print("\n");
    return 0;
}
