/* The serial line: what the kernel says, and what it says when it is asked for the truth about itself. */
#include <stdarg.h>

#include "kernel.h"

#define PORT 0x3f8

static char line[32];
static uint32_t length;

void start_console(void)
{
    out(PORT + 1, 0);    /* no interrupts: the timer asks */
    out(PORT + 3, 0x80);
    out(PORT, 1);        /* 115200 baud */
    out(PORT + 1, 0);
    out(PORT + 3, 3);
    out(PORT + 2, 7);
}

static void put(char byte)
{
    while (!(in(PORT + 5) & 0x20))
        ;
    out(PORT, (uint8_t)byte);
}

static void put_number(uint32_t number, uint32_t base, uint32_t digits)
{
    char text[12];
    uint32_t at = 0;
    do {
        text[at++] = "0123456789abcdef"[number % base];
        number /= base;
    } while (number || at < digits);
    while (at)
        put(text[--at]);
}

/* %s, %u, %x, and %n for the nine digits of nanoseconds. */
void print(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    for (; *format; format++) {
        if (*format != '%') {
            put(*format);
            continue;
        }
        switch (*++format) {
        case 's':
            for (const char *text = va_arg(arguments, const char *); *text; text++)
                put(*text);
            break;
        case 'u':
            put_number(va_arg(arguments, uint32_t), 10, 1);
            break;
        case 'n':
            put_number(va_arg(arguments, uint32_t), 10, 9);
            break;
        case 'x':
            put_number(va_arg(arguments, uint32_t), 16, 8);
            break;
        }
    }
    va_end(arguments);
}

/* In the form that the testkit reads (crates/testkit/src/truth.rs). */
void print_truth(void)
{
    print("=== TRUTH BEGIN\n=== PROCESSES\n");
    for (struct process *it = processes; it; it = it->next)
        print("%u %s\n", it->pid, it->name);
    print("=== EXECUTABLES\n");
    for (struct process *it = processes; it; it = it->next)
        if (it->path)
            print("/proc/%u/exe -> %s\n", it->pid, it->path);
    print("=== MODULES\n");
    for (struct driver *it = drivers; it; it = it->next)
        print("%s %u 0x%x\n", it->name, it->size, it->image);
    print("=== TIME\n%u.%n\n=== TRUTH END\nrunning %u\n=== READY\n", now.seconds, now.nanoseconds, current->pid);
}

/* Takes what was typed; any line asks for the truth. */
void poll_console(void)
{
    while (in(PORT + 5) & 1) {
        char byte = (char)in(PORT);
        if (byte != '\n') {
            if (length < sizeof line)
                line[length++] = byte;
            continue;
        }
        length = 0;
        print_truth();
    }
}

/* Ends the machine, by the keyboard controller's line. */
void reset(void)
{
    while (!(in(PORT + 5) & 0x40))
        ;
    for (;;)
        out(0x64, 0xfe);
}
