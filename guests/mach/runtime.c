/* The runtime of programs that GNU Mach starts as boot modules. */
#include "mach.h"

enum { SEND = 1, RECEIVE = 2, TIMEOUT = 0x100 };
enum { HEADER = 6, WORDS = 64 };

int ask(port to, unsigned id, unsigned count, const int *values, int *reply, unsigned words)
{
    static port own;
    /* The header (rights, size, whom, reply, -, routine), then pairs of a type and a value. */
    unsigned text[WORDS], size = HEADER;
    if (!own)
        own = reply_port();
    for (unsigned i = 0; i < count; i++) {
        text[size++] = 0x10012002; /* one integer of 32 bits, in line */
        text[size++] = values[i];
    }
    text[0] = 19 | 21 << 8; /* copy a send right, make a send-once right */
    text[1] = 4 * size;
    text[2] = to;
    text[3] = own;
    text[4] = 0;
    text[5] = id;
    int rc = message(text, SEND | RECEIVE, 4 * size, sizeof text, own, 0, 0);
    if (rc)
        return rc;
    for (unsigned i = 0; i < words; i++)
        reply[i] = text[HEADER + 1 + i];
    return text[HEADER + 1];
}

void rest(unsigned milliseconds)
{
    static port nobody;
    unsigned text[WORDS];
    if (!nobody)
        nobody = reply_port();
    message(text, RECEIVE | TIMEOUT, 0, sizeof text, nobody, milliseconds, 0);
}

void print_number(const char *what, unsigned value)
{
    char digits[11];
    int at = 10;
    digits[at] = 0;
    do
        digits[--at] = '0' + value % 10;
    while (value /= 10);
    print(what);
    print("=");
    print(digits + at);
    print("\n");
}

unsigned number(const char *text)
{
    unsigned value = 0;
    while (*text >= '0' && *text <= '9')
        value = value * 10 + *text++ - '0';
    return value;
}

/* The module's command line is NAME WORDS... HOST-PORT DEVICE-PORT. A program whose first word is `stay` does not end the machine. */
void start(int *stack)
{
    int count = stack[0];
    char **words = (char **)(stack + 1);
    port host = count > 2 ? number(words[count - 2]) : 0;
    int stays = count > 3 && words[1][0] == 's';
    program(count - 2, words);
    if (stays)
        print("stays\n");
    while (stays)
        rest(5000);
    int options = 0, reply[1];
    ask(host, HOST_REBOOT, 1, &options, reply, 1);
    for (;;)
        rest(1000);
}
