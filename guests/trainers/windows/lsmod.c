/* The base addresses of the kernel's drivers. */
#include <inttypes.h>
#include <stdio.h>

#include "native.h"
#include "virtuoso.h"

static uint64_t bases[1024];
static uint32_t count;
static int32_t rc;

static void ask(void)
{
    count = 0;
    rc = query_modules();
    for (; rc >= 0 && count < modules.count && count < 1024; count++)
        bases[count] = (uintptr_t)modules.list[count].base;
}

int main(void)
{
    ask();
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("count:u32", &count);
    virtuoso_output("bases:u64[count<=1024]", bases);
    virtuoso_begin("lsmod");
    ask();
    virtuoso_end();

    printf("rc %d count %u:", (int)rc, (unsigned)count);
    for (uint32_t i = 0; i < count; i++)
        printf(" %" PRIx64, bases[i]);
    printf("\n");
    return 0;
}
