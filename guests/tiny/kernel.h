/* What the kernel's parts know of each other. */
#ifndef KERNEL_H
#define KERNEL_H

#include <stddef.h>
#include <stdint.h>

#include "layout.h"

enum state { READY, WAITING };

struct process {
    struct process *next;
    uint32_t pid;
    uint32_t slot;
    uint32_t directory; /* physical */
    uint64_t local[2];  /* its code and data segment, where they are not in the global table */
    uint32_t stack;     /* of the kernel: its stack pointer while another one runs */
    uint32_t *stack_area;
    enum state state;
    char *name;
    char *path; /* none for a helper without a program of its own */
};

struct driver {
    struct driver *next;
    char *name;
    void *image;
    uint32_t size;
};

struct time {
    uint32_t seconds;
    uint32_t nanoseconds;
};

/* The caller's registers on the kernel's stack, as `enter` leaves them; behind a call gate ESP and SS follow CS. */
struct frame {
    uint32_t edi, esi, ebp, unused, ebx, edx, ecx, eax;
    uint32_t ds, es, fs, gs;
    uint32_t eip, cs, flags, esp, ss;
};

struct module {
    char *name;
    const uint8_t *start;
    uint32_t size;
};

extern uint32_t kernel_directory[1024];
extern struct process *processes, *current, idle;
extern struct driver *drivers;
extern struct time time_page[], *found_time;
#define now time_page[0]
extern struct module modules[64];
extern uint32_t module_count;
extern const char *command_line;

/* memory.c */
void *allocate(uint32_t size);
void release(void *memory);
void pages_from(uint32_t first);
uint32_t page(void);
void free_page(uint32_t physical);
void *physical(uint32_t address);
int map(uint32_t directory, uint32_t linear, uint32_t physical_page, uint32_t flags);
void free_directory(uint32_t directory);
char *copy_text(const char *text);
int same_text(const char *a, const char *b);
int has_word(const char *text, const char *word);
void *memcpy(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);

/* process.c */
void set_tables(int local);
void use_apic(void);
struct process *whoami(void);
int32_t spawn(const char *module, char *name, char *path, uint32_t argument);
void yield(void);
void leave_process(void) __attribute__((noreturn));
struct process *find(uint32_t pid);

/* clock.c */
void start_clock(void);
uint32_t chip_seconds(void);

/* console.c */
void start_console(void);
void print(const char *format, ...);
void poll_console(void);
void print_truth(void);
void reset(void) __attribute__((noreturn));

static inline void out(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t in(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

#endif
