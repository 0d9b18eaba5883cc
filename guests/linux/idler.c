/* A process that does nothing, under whatever name it is started: hard links of this one program become the
 * named processes of the target guest. */
#include <unistd.h>

int main(void)
{
    for (;;)
        pause();
}
