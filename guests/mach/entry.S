# Where a program begins, and the system calls.
.globl _start
_start:
    xor %ebp, %ebp
    mov %esp, %eax
    and $-16, %esp
    sub $12, %esp
    push %eax
    call start

.macro trap name, number
.globl \name
\name:
    mov $\number, %eax
    lcall $7, $0
    ret
.endm

trap message, -25
trap reply_port, -26
trap task_self, -28
trap host_self, -29
trap print, -30
trap task_create, -68

.section .note.GNU-stack, "", @progbits
