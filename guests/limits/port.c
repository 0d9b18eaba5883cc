/* Asks a device from user mode: the seconds of the real-time clock, through its ports. */
#include <sys/io.h>

#include "work.h"

static uint32_t seconds;

int main(void)
{
    if (ioperm(0x70, 2, 1) != 0)
        return 1;

    virtuoso_output("seconds:u32", &seconds);
    virtuoso_begin("port");
    outb(0, 0x70);
    seconds = inb(0x71);
    virtuoso_end();

    printf("seconds %x\n", seconds);
    return 0;
}
