/* Spins in user mode without privileges (uid and gid 1000), so that a pause finds the CPU there. */
#include <unistd.h>

int main(void)
{
    volatile unsigned long turns = 0;

    if (setgid(1000) != 0 || setuid(1000) != 0)
        return 1;
    for (;;)
        turns++;
}
