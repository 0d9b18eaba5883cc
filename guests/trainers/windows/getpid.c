/* The PID of the running process. */
#include <stdint.h>
#include <stdio.h>
#include <windows.h>

#include "virtuoso.h"

static uint32_t pid;

int main(void)
{
    virtuoso_output("pid:u32", &pid);
    virtuoso_begin("getpid");
    pid = GetCurrentProcessId();
    virtuoso_end();

    printf("pid %u\n", (unsigned)pid);
    return 0;
}
