/* Numbers that the kernel's C and assembly, and its linker script, agree on. */
#ifndef LAYOUT_H
#define LAYOUT_H

/* The kernel sees physical memory from here on, in pages of 4 MiB. */
#define HIGH 0xc0000000
#define DIRECT_PAGES 16

/* The local APIC's registers, which the kernel sees where they are, and of them its number: in words of 32 bits. */
#define APIC 0xfee00000
#define APIC_ID 8

/* Selectors. User segments begin where the running process's memory does; they lie in the global table, or in a local
 * one for each process. */
#define KERNEL_CODE 0x08
#define KERNEL_DATA 0x10
#define USER_CODE 0x18
#define USER_DATA 0x20
#define TASK 0x28
#define CALL_GATE 0x30
#define LOCAL_TABLE 0x38
#define LOCAL_CODE 0x04
#define LOCAL_DATA 0x0c

/* A process's memory: linear addresses, and the limit of its segments. */
#define USER_BASE 0x10000000
#define USER_STRIDE 0x00400000
#define USER_SIZE 0x00100000

#endif
