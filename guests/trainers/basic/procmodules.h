/* /proc/modules, module by module.
 *
 * A line is NAME SIZE USES USERS STATE ADDRESS [TAINTS]. A name may hold anything, spaces and line breaks too: what has no
 * address at its end goes on in the next line. */
#ifndef PROCMODULES_H
#define PROCMODULES_H

#include "linux-calls.h"

#define LINE 8192
#define CHUNK 4096

static char line[LINE];
static char chunk[CHUNK];
static long filled, taken;

static inline void touch_modules(void)
{
    touch(line, sizeof line);
    touch(chunk, sizeof chunk);
    touch_stack();
}

/* The open file, or a negative error: also if it is not procfs's. */
static inline int open_modules(void)
{
    int failed = procfs_error();
    return failed ? failed : open_quietly("/proc/modules", 0);
}

/* The next byte; -1 at the end, or less than that, the error minus 1. */
static inline int next_byte(int file)
{
    if (taken == filled) {
        taken = 0;
        filled = call(NR_read, file, chunk, CHUNK);
        if (filled <= 0) {
            int ended = (int)filled - 1;
            filled = 0;
            return ended;
        }
    }
    return (unsigned char)chunk[taken++];
}

/* The X of the address 0xADDRESS with which a line of this length ends; 0 if the line goes on. */
static inline size_t find_address(size_t length)
{
    size_t x = length;
    while (x > 2 && line[x - 1] != 'x')
        x--;
    return x > 2 && line[x - 2] == '0' && line[x - 3] == ' ' ? x - 1 : 0;
}

/* Reads the next module into `line`: where the X of its address is. 0 at the end, with -EIO or the error of reading in rc if
 * the file was not read whole. */
static inline size_t next_module(int file, int32_t *rc)
{
    size_t used = 0;
    while (used < LINE - 1) {
        int byte = next_byte(file);
        if (byte < 0) {
            *rc = byte < -1 ? byte + 1 : used ? -EIO : *rc;
            return 0;
        }
        if (byte == '\n') {
            line[used] = 0;
            size_t x = find_address(used);
            if (x)
                return x;
        }
        line[used++] = (char)byte;
    }
    *rc = -EIO;
    return 0;
}

static inline size_t skip_number(size_t at)
{
    while (is_digit(line[at]) || line[at] == '-')
        at++;
    return at;
}

/* How long the name is: up to the last place from which SIZE and USES, two numbers, are followed by USERS and STATE. `x` is
 * what next_module gave. */
static inline size_t name_length(size_t x)
{
    size_t length = 0, state = x - 2;
    while (line[length] && line[length] != ' ')
        length++;
    while (state && line[state - 1] != ' ')
        state--;
    state = state ? state - 1 : 0;
    for (size_t at = 0; at < state; at++) {
        size_t uses = skip_number(at + 1) + 1;
        size_t users = line[at] == ' ' && uses > at + 2 && line[uses - 1] == ' ' ? skip_number(uses) + 1 : 0;
        if (users > uses + 1 && line[users - 1] == ' ' && users <= state)
            length = at;
    }
    return length;
}

#endif
