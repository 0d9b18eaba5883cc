/* The end mark is executed on another stack than the begin mark: after a switch in the same function, or (stacks handler) in
 * a signal's handler that runs on an alternate stack. */
#include <signal.h>

#include "work.h"

static char other[65536] __attribute__((aligned(16)));

static __attribute__((noinline)) void end_here(int signal)
{
    (void)signal;
    list_pids();
    virtuoso_end();
}

static __attribute__((noinline)) void end_elsewhere(void)
{
    void *top = other + sizeof other;
    virtuoso_begin("stacks");
    __asm__ __volatile__("mov %%rsp, %%rbx\n\tmov %0, %%rsp\n\tcall *%1\n\t"
                         ".byte 0x0f, 0x1f, 0x80, 0x02, 0x00, 0x54, 0x56\n\tmov %%rbx, %%rsp"
                         : "+r"(top)
                         : "r"(list_pids)
                         : "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "memory", "cc");
}

int main(int argc, char **argv)
{
    stack_t stack = {.ss_sp = other, .ss_size = sizeof other};
    struct sigaction action = {.sa_handler = end_here, .sa_flags = SA_ONSTACK};

    declare_pids();
    if (argc > 1) {
        /* The system writes there; that must not fault between the marks. */
        memset(other, 1, sizeof other);
        sigaltstack(&stack, NULL);
        sigaction(SIGUSR1, &action, NULL);
        virtuoso_begin(argv[1]);
        raise(SIGUSR1);
    } else {
        end_elsewhere();
    }
    return report_pids();
}
