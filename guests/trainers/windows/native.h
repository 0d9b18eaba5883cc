/* The system's own calls that the trainers use: what ntdll exports, with static buffers. The functions above it
 * allocate, load libraries and remember answers, which a run in another process's context cannot repeat. */
#ifndef NATIVE_H
#define NATIVE_H

#include <stdint.h>
#include <windows.h>
#include <winternl.h>

#define SYSTEM_PROCESSES 5
#define SYSTEM_MODULES 11
#define PROCESS_IMAGE 27
#define LENGTH_MISMATCH ((NTSTATUS)0xC0000004)

NTSTATUS NTAPI NtOpenProcess(HANDLE *process, ACCESS_MASK rights, OBJECT_ATTRIBUTES *attributes, void *client);
NTSTATUS NTAPI NtQuerySystemTime(LARGE_INTEGER *time);

/* A module of the kernel, as NtQuerySystemInformation lists it. */
struct module {
    HANDLE section;
    void *mapped;
    void *base;
    ULONG size;
    ULONG flags;
    USHORT load_order;
    USHORT init_order;
    USHORT load_count;
    USHORT name_at;
    char path[256];
};

static struct {
    ULONG count;
    struct module list[1024];
} modules;

/* 0, or the negative of an error: Windows' errors are statuses of 32 bits with the sign set. */
static inline int32_t query_modules(void)
{
    ULONG used = 0;
    return NtQuerySystemInformation(SYSTEM_MODULES, &modules, sizeof modules, &used);
}

#endif
