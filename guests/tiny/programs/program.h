/* What programs begin with: the calls, and a few lines of output. Each is one file that includes this one. */
#ifndef PROGRAM_H
#define PROGRAM_H

#include <stdint.h>

#include "calls.h"

int main(uint32_t argument);

static int32_t call(enum call number, uint32_t a, uint32_t b, uint32_t c)
{
    int32_t result;
    __asm__ volatile("int $0x40" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory");
    return result;
}

/* The same through the call gate. */
__attribute__((unused)) static int32_t far_call(enum call number, uint32_t a, uint32_t b, uint32_t c)
{
    int32_t result;
    __asm__ volatile("lcall $0x33, $0" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory");
    return result;
}

__attribute__((unused)) static void print(const char *text)
{
    call(CALL_WRITE, (uint32_t)text, 0, 0);
}

__attribute__((unused)) static void print_number(const char *before, int32_t number)
{
    char text[16];
    int at = 15;
    uint32_t left = number < 0 ? -(uint32_t)number : (uint32_t)number;
    text[at] = 0;
    do {
        text[--at] = (char)('0' + left % 10);
        left /= 10;
    } while (left);
    if (number < 0)
        text[--at] = '-';
    print(before);
    print(text + at);
}

/* The argument arrives in EAX. */
__asm__(".globl start\nstart:\n\tpush %eax\n\tcall main\n\txor %eax, %eax\n\tint $0x40\n");

#endif
