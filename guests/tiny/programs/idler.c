/* Gives way a few times, then waits for ever; with an argument it ends instead. */
#include "program.h"

int main(uint32_t argument)
{
    for (int i = 0; i < 3; i++)
        call(CALL_YIELD, 0, 0, 0);
    if (!argument)
        call(CALL_WAIT, 0, 0, 0);
    return 0;
}
