/* Processes: each has a directory of page tables and segments that begin at its memory. They run until they give way. */
#include "calls.h"
#include "kernel.h"

#define SLOTS 64

struct elf_header {
    uint8_t identity[16];
    uint16_t type, machine;
    uint32_t version, entry, segments, sections, flags;
    uint16_t size, segment_size, segment_count;
};

struct elf_segment {
    uint32_t type, offset, address, physical, file_size, size, flags, align;
};

struct task {
    uint32_t link, esp0, ss0, unused[23];
};

struct __attribute__((packed)) pointer {
    uint16_t limit;
    uint32_t base;
};

struct process idle = {.name = "idle", .directory = (uint32_t)kernel_directory - HIGH};
struct process *processes, *current = &idle;
/* What runs on each processor, by the number of its local APIC, whose registers lie there if the kernel is to use it. */
static struct process *running[256] = {&idle};
static const volatile uint32_t *apic;

static struct process *slots[SLOTS], *dead;
static uint32_t last_pid;
static struct task task;
static uint64_t gdt[8];
static uint32_t user_code, user_data;
static uint64_t idt[0x41];

extern uint8_t fault_entries[32][16], call_entry[], far_entry[], timer_entry[], leave[], boot_stack_top[];
void switch_stacks(uint32_t *save, uint32_t load);
void load_tables(const struct pointer *gdt, const struct pointer *idt);

/* A segment's descriptor: `kind` is its access byte; the limit is of pages. */
static uint64_t segment(uint32_t base, uint32_t size, uint32_t kind)
{
    uint32_t limit = (size >> 12) - 1;
    uint32_t low = base << 16 | (limit & 0xffff);
    uint32_t high = (base & 0xff000000) | 0xc00000 | (limit & 0xf0000) | kind << 8 | (base >> 16 & 0xff);
    return (uint64_t)high << 32 | low;
}

static void gate(uint32_t vector, const void *entry, uint32_t kind)
{
    uint32_t offset = (uint32_t)entry;
    idt[vector] = (uint64_t)((offset & 0xffff0000) | kind << 8) << 32 | KERNEL_CODE << 16 | (offset & 0xffff);
}

/* The descriptor of a task or of a local table. */
static uint64_t system_segment(const void *start, uint32_t size, uint32_t kind)
{
    uint32_t base = (uint32_t)start;
    uint32_t high = (base & 0xff000000) | kind << 8 | (base >> 16 & 0xff);
    return (uint64_t)high << 32 | base << 16 | (size - 1);
}

/* User segments are this process's. The idle one has none: the last process's stay. */
static void use_segments(const struct process *process)
{
    if (process == &idle)
        return;
    if (user_data == (LOCAL_DATA | 3)) {
        gdt[LOCAL_TABLE / 8] = system_segment(process->local, sizeof process->local, 0x82);
        __asm__ volatile("lldt %w0" : : "r"(LOCAL_TABLE) : "memory");
    } else {
        gdt[USER_CODE / 8] = process->local[0];
        gdt[USER_DATA / 8] = process->local[1];
    }
    __asm__ volatile("mov %0, %%fs" : : "r"(user_data) : "memory");
}

void set_tables(int local)
{
    user_code = (local ? LOCAL_CODE : USER_CODE) | 3;
    user_data = (local ? LOCAL_DATA : USER_DATA) | 3;
    gdt[KERNEL_CODE / 8] = segment(0, 0, 0x9a);
    gdt[KERNEL_DATA / 8] = segment(0, 0, 0x92);
    gdt[TASK / 8] = system_segment(&task, sizeof task, 0x89);
    uint32_t entry = (uint32_t)far_entry;
    gdt[CALL_GATE / 8] = (uint64_t)((entry & 0xffff0000) | 0xec00) << 32 | KERNEL_CODE << 16 | (entry & 0xffff);
    task.ss0 = KERNEL_DATA;
    task.esp0 = (uint32_t)boot_stack_top;
    for (uint32_t vector = 0; vector < 32; vector++)
        gate(vector, fault_entries[vector], 0x8e);
    gate(0x20, timer_entry, 0x8e);
    gate(0x40, call_entry, 0xee);
    struct pointer global = {sizeof gdt - 1, (uint32_t)gdt}, interrupts = {sizeof idt - 1, (uint32_t)idt};
    load_tables(&global, &interrupts);
}

struct process *find(uint32_t pid)
{
    struct process *it = processes;
    while (it && it->pid != pid)
        it = it->next;
    return it;
}

/* Copies a program into a new process's memory; its first instruction, 0 if it is none. */
static uint32_t load(const struct module *module, uint32_t directory, uint32_t base)
{
    const struct elf_header *header = (const void *)module->start;
    if (*(const uint32_t *)header->identity != 0x464c457f)
        return 0;
    const struct elf_segment *segments = (const void *)(module->start + header->segments);
    for (uint32_t i = 0; i < header->segment_count; i++) {
        const struct elf_segment *it = &segments[i];
        if (it->type != 1)
            continue;
        for (uint32_t at = it->address & ~4095u; at < it->address + it->size; at += 4096) {
            uint32_t frame = page();
            for (uint32_t byte = 0; byte < 4096; byte++)
                if (at + byte >= it->address && at + byte < it->address + it->file_size)
                    ((uint8_t *)physical(frame))[byte] = module->start[it->offset + at + byte - it->address];
            if (!map(directory, base + at, frame, it->flags & 2 ? 7 : 5))
                return 0;
        }
    }
    return header->entry;
}

/* Makes a process; it gets the name and the path. Its number, or -1. */
int32_t spawn(const char *program, char *name, char *path, uint32_t argument)
{
    const struct module *module = modules;
    while (module < modules + module_count && !same_text(module->name, program))
        module++;
    uint32_t slot = 0;
    while (slot < SLOTS && slots[slot])
        slot++;
    if (module == modules + module_count || slot == SLOTS)
        return -1;
    struct process *process = allocate(sizeof *process);
    uint32_t base = USER_BASE + slot * USER_STRIDE;
    process->slot = slot;
    process->local[0] = segment(base, USER_SIZE, 0xfa);
    process->local[1] = segment(base, USER_SIZE, 0xf2);
    process->directory = page();
    memcpy((uint8_t *)physical(process->directory) + 3072, kernel_directory + 768, 1024);
    uint32_t entry = load(module, process->directory, base);
    for (uint32_t at = USER_SIZE - 0x4000; at < USER_SIZE; at += 4096)
        map(process->directory, base + at, page(), 7);
    map(process->directory, base + TIME_PAGE, (uint32_t)time_page - HIGH, 5);
    map(process->directory, base + FOUND_TIME_PAGE, (uint32_t)found_time - HIGH, 5);
    process->pid = ++last_pid;
    process->name = name;
    process->path = path;
    process->stack_area = allocate(4096);

    /* As if it had called the kernel and been switched from. */
    struct frame *frame = (struct frame *)(process->stack_area + 1024) - 1;
    *frame = (struct frame){
        .eax = argument, .eip = entry, .cs = user_code, .flags = 0x202, .esp = USER_SIZE, .ss = user_data,
        .ds = user_data, .es = user_data, .fs = user_data, .gs = user_data,
    };
    uint32_t *stack = (uint32_t *)frame;
    *--stack = (uint32_t)leave;
    process->stack = (uint32_t)(stack - 4);

    slots[slot] = process;
    struct process **link = &processes;
    while (*link)
        link = &(*link)->next;
    *link = process;
    return (int32_t)process->pid;
}

/* A page of 4 MiB that is not cached. */
void use_apic(void)
{
    kernel_directory[APIC >> 22] = (APIC & 0xffc00000) | 0x9b;
    apic = (const volatile uint32_t *)APIC;
}

static uint32_t processor(void)
{
    return apic ? apic[APIC_ID] >> 24 : 0;
}

struct process *whoami(void)
{
    return running[processor()];
}

static void switch_to(struct process *next)
{
    struct process *last = current;
    if (next == last)
        return;
    current = next;
    running[processor()] = next;
    use_segments(next);
    if (next != &idle)
        task.esp0 = (uint32_t)(next->stack_area + 1024);
    __asm__ volatile("mov %0, %%cr3" : : "r"(next->directory) : "memory");
    switch_stacks(&last->stack, next->stack);
}

/* Lets the next one run that can. */
void yield(void)
{
    struct process *from = current == &idle ? 0 : current;
    struct process *it = from;
    do {
        it = it && it->next ? it->next : processes;
        if (it && it->state == READY) {
            switch_to(it);
            return;
        }
    } while (it != from && (from || (it && it->next)));
    switch_to(&idle);
}

/* The running process ends. What it stands on is freed when the next one ends. */
void leave_process(void)
{
    struct process **link = &processes;
    while (*link != current)
        link = &(*link)->next;
    *link = current->next;
    slots[current->slot] = 0;
    if (dead) {
        free_directory(dead->directory);
        release(dead->stack_area);
        release(dead->name);
        release(dead->path);
        release(dead);
    }
    dead = current;
    struct process *next = processes;
    while (next && next->state != READY)
        next = next->next;
    switch_to(next ? next : &idle);
    __builtin_unreachable();
}
