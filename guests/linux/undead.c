/* Leaves one zombie: a child that has ended and that nobody waits for. It has a PID and a name but no executable. */
#include <unistd.h>

int main(void)
{
    if (fork() == 0)
        _exit(3);
    for (;;)
        pause();
}
