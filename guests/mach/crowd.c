/* Makes as many tasks as its last word says, and stays. */
#include "mach.h"

void program(int count, char **words)
{
    port child;
    for (unsigned left = number(words[count - 1]); left; left--)
        task_create(task_self(), 0, &child);
    print("crowd ready\n");
    for (;;)
        rest(5000);
}
