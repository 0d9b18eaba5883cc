/* Two answers: the time from the page on which the kernel shows it, and beside it the process that
 * runs, as a C library remembers it. The second is the training system's, whatever the target. */
#include "library.h"
#include "virtuoso.h"

static uint32_t sec;
static uint32_t pid;

int main(uint32_t argument)
{
    const volatile uint32_t *time = (const volatile uint32_t *)TIME_PAGE;
    (void)argument;
    library_getpid();
    virtuoso_output("sec:u32", &sec);
    virtuoso_output("pid:u32", &pid);
    virtuoso_begin("shownpid");
    sec = time[0];
    pid = library_getpid();
    virtuoso_end();

    print_number("shownpid: ", (int32_t)pid);
    print("\n");
    return 0;
}
