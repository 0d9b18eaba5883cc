/* Where the loader starts the kernel, the entries from user code and interrupts, and the switch between processes. */

#include "layout.h"

    .section .boot, "ax"
    .align 4
    /* Multiboot 1: modules on page boundaries, no other wishes. */
    .long 0x1badb002, 1, -(0x1badb002 + 1)

    /* Paging is off: addresses are physical. */
    .globl start
start:
    mov $(kernel_directory - HIGH), %ecx
    mov %ecx, %cr3
    mov %cr4, %ecx
    or $0x10, %ecx                  /* pages of 4 MiB */
    mov %ecx, %cr4
    mov %cr0, %ecx
    or $0x80010001, %ecx            /* paging, read-only pages for the kernel too, protected mode */
    mov %ecx, %cr0
    mov $high, %ecx
    jmp *%ecx

    .text
high:
    movl $0, kernel_directory       /* nothing at low addresses any more */
    mov %cr3, %ecx
    mov %ecx, %cr3
    mov $boot_stack_top, %esp
    push %ebx
    call kernel_main
1:  hlt
    jmp 1b

    /* void load_tables(const void *gdt, const void *idt): six-byte pointers. */
    .globl load_tables
load_tables:
    mov 4(%esp), %eax
    lgdt (%eax)
    mov 8(%esp), %eax
    lidt (%eax)
    ljmp $KERNEL_CODE, $1f
1:  mov $KERNEL_DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %gs
    mov %eax, %fs
    mov $TASK, %eax
    ltr %ax
    ret

    /* void switch_stacks(uint32_t *save, uint32_t load) */
    .globl switch_stacks
switch_stacks:
    mov 4(%esp), %eax
    mov 8(%esp), %edx
    push %ebp
    push %ebx
    push %esi
    push %edi
    mov %esp, (%eax)
    mov %edx, %esp
    pop %edi
    pop %esi
    pop %ebx
    pop %ebp
    ret

    .macro enter
    push %gs
    push %fs
    push %es
    push %ds
    pusha
    .endm

    /* int 0x40. FS becomes the caller's data segment: the kernel reaches its memory by it. */
    .globl call_entry
call_entry:
    enter
    mov %ds, %eax
    mov %eax, %fs
    mov $KERNEL_DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    cld
    push %esp
    call system_call
    add $4, %esp
    .globl leave
leave:
    popa
    pop %ds
    pop %es
    pop %fs
    pop %gs
    iret

    /* The same calls through a gate: no flags are on the stack, and interrupts are still on. */
    .globl far_entry
far_entry:
    cli
    enter
    mov %ds, %eax
    mov %eax, %fs
    mov $KERNEL_DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    cld
    push %esp
    call system_call
    add $4, %esp
    popa
    pop %ds
    pop %es
    pop %fs
    pop %gs
    sti
    lret

    .globl timer_entry
timer_entry:
    enter
    mov $KERNEL_DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    cld
    call timer
    jmp leave

    /* Exceptions: none is expected. */
    .macro fault number
    .align 16
    push $\number
    jmp fault_entry
    .endm
    .globl fault_entries
    .align 16
fault_entries:
    .altmacro
    .set number, 0
    .rept 32
    fault %number
    .set number, number + 1
    .endr
fault_entry:
    mov $KERNEL_DATA, %eax
    mov %eax, %ds
    mov %eax, %es
    push %esp
    call fault

    .data
    .align 4096
    .globl kernel_directory
kernel_directory:
    .long 0x83                      /* the first 4 MiB at their physical addresses, until `high` */
    .fill 767, 4, 0
    .set page, 0x83
    .rept DIRECT_PAGES
    .long page
    .set page, page + 0x400000
    .endr
    .fill 256 - DIRECT_PAGES, 4, 0

    .bss
    .align 16
    .skip 4096
    .globl boot_stack_top
boot_stack_top:
