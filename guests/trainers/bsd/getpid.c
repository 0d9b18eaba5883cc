/* The PID of the running process (any BSD). */
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

#include "virtuoso.h"

static uint32_t pid;

int main(void)
{
    virtuoso_output("pid:u32", &pid);
    virtuoso_begin("getpid");
    pid = getpid();
    virtuoso_end();

    printf("pid %u\n", pid);
    return 0;
}
