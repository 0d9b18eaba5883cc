/* The system calls of Linux for programs without a C library, 64-bit and i386. What a program needs of a library is here too.
 *
 * A program has `int main(int argc, char **argv)` and is compiled with
 *     cc [-m32] -O2 -ffreestanding -nostdlib -static -mgeneral-regs-only ...
 * crates/cli/build.rs has all of the words. Nothing of the machine that compiles gets into it but the compiler's own code: no
 * library, no header but the compiler's. Calls return what the kernel returns: a negative number is minus an error.
 */
#ifndef LINUX_CALLS_H
#define LINUX_CALLS_H

#include <stddef.h>
#include <stdint.h>

int main(int argc, char **argv);

#define UNUSED __attribute__((unused))

/* The errors that programs name themselves. */
#define EPERM 1
#define ENOENT 2
#define EIO 5
#define EINVAL 22
#define ESPIPE 29
#define ENOSYS 38

#if defined(__x86_64__)

enum { NR_read = 0, NR_open = 2, NR_close = 3, NR_lseek = 8, NR_pread64 = 17, NR_getpid = 39, NR_exit = 60,
       NR_readlink = 89, NR_statfs = 137, NR_lsetxattr = 189, NR_lgetxattr = 192, NR_llistxattr = 195,
       NR_getdents64 = 217, NR_clock_gettime = 228, NR_tgkill = 234, NR_unshare = 272, NR_statx = 332 };

__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall begin_main\n\thlt\n");

static inline long call5(long number, long a, long b, long c, long d, long e)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory", "cc");
    return result;
}

#elif defined(__i386__)

enum { NR_exit = 1, NR_read = 3, NR_open = 5, NR_close = 6, NR_getpid = 20, NR_readlink = 85, NR_llseek = 140,
       NR_pread64 = 180, NR_getdents64 = 220, NR_lsetxattr = 227, NR_lgetxattr = 230, NR_llistxattr = 233,
       NR_clock_gettime = 265, NR_statfs64 = 268, NR_tgkill = 270, NR_unshare = 310, NR_statx = 383,
       NR_clock_gettime64 = 403 };

__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %esp, %eax\n\tand $-16, %esp\n\tsub $12, %esp\n\tpush %eax\n"
        "\tcall begin_main\n\thlt\n");

static inline long call5(long number, long a, long b, long c, long d, long e)
{
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "0"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e) : "memory", "cc");
    return result;
}

#else
#error "linux-calls.h: x86-64 and i386"
#endif

#define call(number, ...) CALL_OF(number, __VA_ARGS__, 0, 0, 0, 0, 0)
#define CALL_OF(number, a, b, c, d, e, ...) \
    call5((number), (long)(a), (long)(b), (long)(c), (long)(d), (long)(e))

/* A large offset is one word in 64-bit code and two in 32-bit code. */
UNUSED static int64_t seek(int file, uint64_t to)
{
#if defined(__x86_64__)
    return call(NR_lseek, file, to, 0);
#else
    static int64_t at;
    long failed = call(NR_llseek, file, to >> 32, to, &at, 0);
    return failed ? failed : at;
#endif
}

UNUSED static long read_at(int file, void *buffer, size_t count, uint64_t offset)
{
#if defined(__x86_64__)
    return call(NR_pread64, file, buffer, count, offset);
#else
    return call(NR_pread64, file, buffer, count, offset, offset >> 32);
#endif
}

#define O_NONBLOCK 04000
#define O_NOCTTY 0400
#define O_CLOEXEC 02000000
#define O_NOATIME 01000000
#define O_LARGEFILE_32 0100000
#define O_DIRECTORY 0200000

/* For reading, so that as little as possible happens by it: nothing waits, no terminal is taken, the time of the last access
 * stays. Who may not keep that time opens without it. */
UNUSED static int open_quietly(const char *path, int flags)
{
    flags |= O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
#if defined(__i386__)
    flags |= O_LARGEFILE_32;
#endif
    int file = call(NR_open, path, flags | O_NOATIME, 0);
    return file == -EPERM ? (int)call(NR_open, path, flags, 0) : file;
}

/* One directory entry as getdents64 gives it. */
struct entry {
    uint64_t inode;
    int64_t next;
    uint16_t size;
    uint8_t type;
    char name[];
};

struct file_system {
#if defined(__x86_64__)
    uint64_t type, block_size, blocks, free, available, files, files_free;
    uint32_t id[2];
    uint64_t name_length, fragment_size, flags, spare[4];
};
#else
    uint32_t type, block_size;
    uint64_t blocks, free, available, files, files_free;
    uint32_t id[2], name_length, fragment_size, flags, spare[4];
} __attribute__((packed, aligned(4)));
#endif

UNUSED static int32_t file_system(const char *path, struct file_system *found)
{
#if defined(__x86_64__)
    return call(NR_statfs, path, found);
#else
    return call(NR_statfs64, path, sizeof *found, found);
#endif
}

/* procfs's magic number, and with a minus what `rc` is where /proc is something else: docs/packs.md. */
#define PROC_MAGIC 0x9fa0

/* 0 if /proc is procfs's own; else the negative error: what else is mounted there may say anything. */
UNUSED static int32_t procfs_error(void)
{
    static struct file_system fs;
    int32_t failed = file_system("/proc", &fs);
    return failed ? failed : fs.type == PROC_MAGIC ? 0 : -PROC_MAGIC;
}

/* Puts every page of a variable in its place: what a recording never touched would not be there in a run, and the kernel
 * writes where it is told to. */
UNUSED static void touch(void *from, size_t size)
{
    volatile char *bytes = from;
    for (size_t at = 0; at < size; at += 4096)
        bytes[at] = 0;
    bytes[size - 1] = 0;
}

/* The same for the stack below. */
UNUSED static void touch_stack(void)
{
    volatile char below[16384];
    for (size_t at = 0; at < sizeof below; at += 4096)
        below[at] = 0;
    below[sizeof below - 1] = 0;
}

UNUSED static size_t length_of(const char *text)
{
    size_t length = 0;
    while (text[length])
        length++;
    return length;
}

/* Copies a text, cut where it does not fit. */
UNUSED static void copy_text(char *to, size_t room, const char *from)
{
    size_t at = 0;
    for (; at + 1 < room && from[at]; at++)
        to[at] = from[at];
    to[at] = 0;
}

UNUSED static int is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* A number in decimal, or in hexadecimal digits after 0x. */
UNUSED static uint64_t number_of(const char *text)
{
    uint64_t value = 0;
    if (text[0] == '0' && text[1] == 'x') {
        for (text += 2;; text++) {
            char digit = *text | 0x20;
            if (is_digit(*text))
                value = value << 4 | (uint64_t)(*text - '0');
            else if (digit >= 'a' && digit <= 'f')
                value = value << 4 | (uint64_t)(digit - 'a' + 10);
            else
                return value;
        }
    }
    for (; is_digit(*text); text++)
        value = value * 10 + (uint64_t)(*text - '0');
    return value;
}

/* The argument of this number, or a text in its place. */
UNUSED static const char *argument(int argc, char **argv, int number, const char *without)
{
    return number < argc ? argv[number] : without;
}

__attribute__((used, noreturn)) static void begin_main(long *stack)
{
    long rc = main((int)stack[0], (char **)(stack + 1));
    for (;;)
        call(NR_exit, rc);
}

#endif
