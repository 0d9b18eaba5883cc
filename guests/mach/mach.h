/* What the programs here need of GNU Mach on i386: system calls and messages, as its reference manual documents them. No header of its own is used.
 *
 * A system call is a far call to the selector 7, with its number in eax and its arguments on the stack. Everything else is asked by messages to ports. */
#ifndef MACH_H
#define MACH_H

typedef unsigned int port;

int message(void *text, int options, unsigned send, unsigned receive, port from, unsigned milliseconds, port notify);
port reply_port(void);
port task_self(void);
port host_self(void);
void print(const char *text);
int task_create(port parent, int inherit, port *child);

/* Asks `to` the routine `id` with `count` integers; the reply's words from the return code on are at `reply`. Returns that code. */
int ask(port to, unsigned id, unsigned count, const int *values, int *reply, unsigned words);
/* Waits. */
void rest(unsigned milliseconds);
void print_number(const char *what, unsigned value);
unsigned number(const char *text);

enum {
    HOST_GET_TIME = 2634,
    HOST_REBOOT = 2635,
    PROCESSOR_SET_DEFAULT = 2606,
    PROCESSOR_SET_INFO = 2640,
};

/* The program: what its module's command line says before the ports. */
void program(int count, char **words);

#endif
