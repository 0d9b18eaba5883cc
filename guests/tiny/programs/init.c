/* The first process. The command line says what it starts:
 *
 *     seed=N        which names and sizes, and in which order
 *     processes=N   how many processes
 *     drivers=N     how many drivers
 *     run=A,B:N     these programs one after the other, with their arguments; then the machine ends
 *     local         segments lie in a local table for each process (the kernel reads this word)
 *     busy=N        so many processes that never give way: the first one runs, the others wait
 */
#include "program.h"

static char line[512];
static uint32_t seed;

static uint32_t random(uint32_t below)
{
    seed = seed * 1103515245 + 12345;
    return (seed >> 16) % below;
}

/* What follows a word of the command line; none if it is not there. */
static const char *option(const char *word)
{
    for (const char *at = line; *at; at++) {
        const char *a = at, *b = word;
        while (*b && *a == *b)
            a++, b++;
        if (!*b && (at == line || at[-1] == ' '))
            return a;
    }
    return 0;
}

static uint32_t number(const char *text)
{
    uint32_t value = 0;
    while (text && *text >= '0' && *text <= '9')
        value = 10 * value + (uint32_t)(*text++ - '0');
    return value;
}

static char *append(char *to, const char *text)
{
    while (*text)
        *to++ = *text++;
    *to = 0;
    return to;
}

static int32_t spawn(const char *program, const char *name, const char *path, uint32_t argument)
{
    uint32_t words[4] = {(uint32_t)program, (uint32_t)name, (uint32_t)path, argument};
    return call(CALL_SPAWN, (uint32_t)words, 0, 0);
}

static void start_process(uint32_t index)
{
    static const char *const names[] = {"desk", "edit", "mail", "print", "index", "sound", "draw", "notes"};
    const char *name = names[random(8)];
    char path[64], *end = append(append(append(path, "/apps/"), name), "/");
    char digit[2] = {(char)('a' + index % 26), 0};
    append(append(end, name), digit);
    /* Every fourth has no program of its own. */
    spawn("idler", name, index % 4 == 3 ? "" : path, 0);
}

static void start_driver(uint32_t index)
{
    static const char *const names[] = {"disk", "line", "mouse", "card", "floppy", "tape", "screen", "bell"};
    char name[32], digit[2] = {(char)('0' + index % 10), 0};
    append(append(name, names[random(8)]), digit);
    call(CALL_LOAD, (uint32_t)name, 256 + 64 * random(40), 0);
}

/* Something comes and goes: holes in the heap, numbers that nobody has. */
static void disturb(void)
{
    uint32_t image = (uint32_t)call(CALL_LOAD, (uint32_t)"temporary", 128 + 16 * random(60), 0);
    spawn("idler", "brief", "/boot/brief", 1);
    start_driver(random(10));
    call(CALL_UNLOAD, image, 0, 0);
}

static int is_there(int32_t pid)
{
    uint32_t pids[256];
    int32_t count = call(CALL_PROCESSES, (uint32_t)pids, 256, 0);
    while (count > 0)
        if ((int32_t)pids[--count] == pid)
            return 1;
    return 0;
}

static void run(const char *list)
{
    while (*list && *list != ' ') {
        char name[32], path[48], *end = name;
        uint32_t argument = 0;
        while (*list && *list != ' ' && *list != ',' && *list != ':')
            *end++ = *list++;
        *end = 0;
        if (*list == ':')
            argument = number(++list);
        while (*list && *list != ' ' && *list != ',')
            list++;
        if (*list == ',')
            list++;
        append(append(path, "/train/"), name);
        int32_t pid = spawn(name, name, path, argument);
        while (is_there(pid))
            call(CALL_YIELD, 0, 0, 0);
    }
}

int main(uint32_t argument)
{
    (void)argument;
    call(CALL_COMMAND_LINE, (uint32_t)line, sizeof line, 0);
    seed = number(option("seed="));
    uint32_t processes = number(option("processes=")), drivers = number(option("drivers="));
    for (uint32_t i = 0; i < processes || i < drivers; i++) {
        if (random(3) == 0)
            disturb();
        if (i < drivers)
            start_driver(i);
        if (i < processes)
            start_process(i);
    }
    for (int i = 0; i < 8; i++)
        call(CALL_YIELD, 0, 0, 0);
    const char *list = option("run=");
    if (list) {
        run(list);
        print("=== TRAINING DONE\n");
        call(CALL_RESET, 0, 0, 0);
    }
    call(CALL_TRUTH, 0, 0, 0);
    for (uint32_t i = number(option("busy=")); i > 0; i--)
        spawn("spinner", "spinner", "/apps/spinner", 0);
    call(CALL_WAIT, 0, 0, 0);
    return 0;
}
