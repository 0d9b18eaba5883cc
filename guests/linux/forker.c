/* Forks, and lets die, all the time; and keeps a list of its children that can be read from outside at any moment.
 *
 * The list is one page that begins with a mark. Each place holds a state and a PID. A state is written before what it announces
 * happens and changed after it has: at any pause a child in a place that says ALIVE is a process, and one in a place that says
 * DYING may be one; while a place says FORKING one more process may be there, of which nobody knows the PID yet. Each change
 * counts a turn. This is the page's only writer and runs on one processor at a time, so the order of its stores is what is seen
 * when the guest stands still. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EMPTY, FORKING, ALIVE, DYING };
enum { PLACES = 24 };

struct page {
    char mark[32];
    volatile uint32_t self, turns;
    struct { volatile uint32_t state, pid; } place[PLACES];
};

static uint32_t seed = 12345;

static uint32_t draw(uint32_t below)
{
    seed = seed * 1664525 + 1013904223;
    return (seed >> 8) % below;
}

int main(void)
{
    /* Shared: a private page would move to another place with the first store after each fork. */
    struct page *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (page == MAP_FAILED || mlock(page, 4096) != 0)
        return 1;
    /* In the program file the mark is in two parts, so that only the page has it whole. */
    memcpy(page->mark, "virtuoso: children ", 19);
    memcpy(page->mark + 19, "of forker\n\1\2\3", 13);
    page->self = getpid();
    for (;;) {
        uint32_t at = draw(PLACES);
        if (page->place[at].state == EMPTY) {
            page->place[at].pid = 0;
            page->place[at].state = FORKING;
            pid_t child = fork();
            if (child == 0) {
                for (;;)
                    pause();
            }
            page->place[at].pid = child > 0 ? child : 0;
            page->place[at].state = child > 0 ? ALIVE : EMPTY;
        } else {
            page->place[at].state = DYING;
            kill(page->place[at].pid, SIGKILL);
            waitpid(page->place[at].pid, 0, 0);
            page->place[at].state = EMPTY;
        }
        page->turns++;
        /* Some pauses are to find everything settled. */
        for (volatile int rest = 0; rest < 100000; rest++)
            continue;
    }
}
