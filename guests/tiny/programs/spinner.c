/* Never gives way. */
#include "program.h"

int main(uint32_t argument)
{
    (void)argument;
    for (;;)
        __asm__ volatile("");
}
