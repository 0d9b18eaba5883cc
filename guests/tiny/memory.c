/* Physical pages, page tables, the kernel's heap. */
#include "kernel.h"

#define HEAP_SIZE (256 << 10)
#define MEMORY_END (16 << 20)

/* The heap is one row of blocks, each behind such a head. */
struct block {
    uint32_t size; /* without the head */
    uint32_t used;
};

static uint8_t heap[HEAP_SIZE] __attribute__((aligned(16)));
static uint32_t first_page, next_page, free_pages;

void *memcpy(void *to, const void *from, size_t size)
{
    uint8_t *target = to;
    const uint8_t *source = from;
    while (size--)
        *target++ = *source++;
    return to;
}

void *memset(void *to, int byte, size_t size)
{
    uint8_t *target = to;
    while (size--)
        *target++ = (uint8_t)byte;
    return to;
}

static struct block *after(struct block *block)
{
    return (struct block *)((uint8_t *)(block + 1) + block->size);
}

void *allocate(uint32_t size)
{
    struct block *first = (struct block *)heap, *end = (struct block *)(heap + HEAP_SIZE);
    if (!first->size)
        first->size = HEAP_SIZE - sizeof *first;
    size = (size + 7) & ~7u;
    for (struct block *block = first; block < end; block = after(block)) {
        if (block->used)
            continue;
        while (after(block) < end && !after(block)->used)
            block->size += sizeof *block + after(block)->size;
        if (block->size < size)
            continue;
        if (block->size >= size + 2 * sizeof *block) {
            uint32_t rest = block->size - size - sizeof *block;
            block->size = size;
            after(block)->size = rest;
            after(block)->used = 0;
        }
        block->used = 1;
        return memset(block + 1, 0, block->size);
    }
    print("the heap is full\n");
    reset();
}

void release(void *memory)
{
    if (memory)
        ((struct block *)memory - 1)->used = 0;
}

char *copy_text(const char *text)
{
    uint32_t size = 1;
    while (text[size - 1])
        size++;
    return memcpy(allocate(size), text, size);
}

int same_text(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

/* Whether a line has this word, not as its first. */
int has_word(const char *text, const char *word)
{
    for (; *text; text++) {
        const char *a = text + 1, *b = word;
        if (*text != ' ')
            continue;
        while (*b && *a == *b)
            a++, b++;
        if (!*b && (!*a || *a == ' '))
            return 1;
    }
    return 0;
}

void *physical(uint32_t address)
{
    return (void *)(HIGH + address);
}

/* Pages from `first` on are free. */
void pages_from(uint32_t first)
{
    first_page = next_page = (first + 4095) & ~4095u;
}

/* A page of zeros. */
uint32_t page(void)
{
    uint32_t found = free_pages;
    if (found) {
        free_pages = *(uint32_t *)physical(found);
    } else {
        found = next_page;
        next_page += 4096;
    }
    if (found >= MEMORY_END) {
        print("no memory is left\n");
        reset();
    }
    memset(physical(found), 0, 4096);
    return found;
}

void free_page(uint32_t freed)
{
    *(uint32_t *)physical(freed) = free_pages;
    free_pages = freed;
}

/* Maps a page; an address that is mapped already keeps its page, which is returned. */
int map(uint32_t directory, uint32_t linear, uint32_t physical_page, uint32_t flags)
{
    uint32_t *entry = (uint32_t *)physical(directory) + (linear >> 22);
    if (!(*entry & 1))
        *entry = page() | 7;
    entry = (uint32_t *)physical(*entry & ~4095u) + (linear >> 12 & 1023);
    if (*entry & 1)
        return 0;
    *entry = physical_page | flags;
    return 1;
}

/* Pages that the kernel shows to processes stay. */
static int is_of_process(uint32_t frame)
{
    return frame >= first_page && physical(frame) != found_time;
}

/* Frees a process's pages, its tables and its directory. */
void free_directory(uint32_t directory)
{
    uint32_t *entries = physical(directory);
    for (uint32_t i = 0; i < HIGH >> 22; i++) {
        if (!(entries[i] & 1))
            continue;
        uint32_t *table = physical(entries[i] & ~4095u);
        for (uint32_t j = 0; j < 1024; j++)
            if (table[j] & 1 && is_of_process(table[j] & ~4095u))
                free_page(table[j] & ~4095u);
        free_page(entries[i] & ~4095u);
    }
    free_page(directory);
}
