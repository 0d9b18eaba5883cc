/* The begin mark is in a function that returns before the end mark: inner, or the other way round: inner deeper. */
#include "work.h"

static __attribute__((noinline)) void begin(const char *name)
{
    virtuoso_begin(name);
    list_pids();
}

static __attribute__((noinline)) void end(void)
{
    list_pids();
    virtuoso_end();
}

int main(int argc, char **argv)
{
    declare_pids();
    if (argc > 1) {
        virtuoso_begin(argv[1]);
        end();
    } else {
        begin("inner");
        virtuoso_end();
    }
    return report_pids();
}
