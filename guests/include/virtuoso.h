/* Marks for Virtuoso training programs (C and C++; gcc, clang, tcc, MSVC; x86 with 32 and 64 bit).
 *
 *     virtuoso_input("pid:u32", &pid);          which variables go in; any number, before begin
 *     virtuoso_output("name:cstr[256]", name);  which variables come out; any number, before begin
 *     virtuoso_begin("getpsfile");              the work starts: the inputs have their values
 *     ...
 *     virtuoso_end();                           the work is done: the outputs have their values
 *
 * A specification is NAME:TYPE. TYPE is u8 u16 u32 u64 i8 i16 i32 i64, cstr[BYTES] (a NUL-terminated string in a
 * buffer), bytes (one value of any bytes), T[COUNT] (always all of them) or T[FIELD<=COUNT] (as many as the input or output FIELD says when the program
 * ends, at most COUNT). See docs/markers.md.
 *
 * A mark is the instruction `nopl 0x565400NN(%rax)`: it does nothing, needs no privilege and may run anywhere; only
 * a recording emulator notices it. Arguments are in rdi and rsi (edi and esi).
 *
 * This file is in the public domain (CC0), so that it may be compiled into anything.
 */
#ifndef VIRTUOSO_H
#define VIRTUOSO_H

#define VIRTUOSO_ABI 1

/* The recorder reads a string through the page tables; make sure that its pages are there. */
static void virtuoso_touch(const char *text)
{
    const volatile char *p = text;
    while (*p)
        p++;
}

#if defined(__GNUC__) || defined(__clang__) || defined(__TINYC__)

/* The memory clobber makes the compiler finish stores before a mark and load again after it. */
#define VIRTUOSO_MARK(nn, a, b)                                                                     \
    __asm__ __volatile__(".byte 0x0f, 0x1f, 0x80, " #nn ", 0x00, 0x54, 0x56"                        \
                         : : "D"(a), "S"(b) : "memory")

/* cld; test %esp, %esp: the recorder cannot see the flags at the mark, so the work begins with known ones. */
#define virtuoso_begin(name)                                                                        \
    do {                                                                                            \
        const char *virtuoso_text = (name);                                                         \
        virtuoso_touch(virtuoso_text);                                                              \
        __asm__ __volatile__(".byte 0x0f, 0x1f, 0x80, 0x01, 0x00, 0x54, 0x56, 0xfc, 0x85, 0xe4"     \
                             : : "D"(virtuoso_text), "S"((const void *)VIRTUOSO_ABI) : "memory", "cc");     \
    } while (0)

#define virtuoso_end() VIRTUOSO_MARK(0x02, (const void *)0, (const void *)0)

#define virtuoso_input(spec, variable)                                                              \
    do {                                                                                            \
        const char *virtuoso_text = (spec);                                                         \
        virtuoso_touch(virtuoso_text);                                                              \
        VIRTUOSO_MARK(0x03, virtuoso_text, (const void *)(variable));                               \
    } while (0)

#define virtuoso_output(spec, variable)                                                             \
    do {                                                                                            \
        const char *virtuoso_text = (spec);                                                         \
        virtuoso_touch(virtuoso_text);                                                              \
        VIRTUOSO_MARK(0x04, virtuoso_text, (const void *)(variable));                               \
    } while (0)

#elif defined(_MSC_VER)

/* MSVC has no inline assembly for x64: each mark is a small function in bytes that moves Windows' argument registers to
 * where the mark wants them. The compiler must assume that an unknown function reads and writes every variable whose
 * address was handed out, which is what the memory clobber does above. Not run by our tests: no Windows there. */
#pragma section(".vtext", read, execute)
typedef void(__cdecl *virtuoso_fn)(const void *, const void *);

#if defined(_M_X64)
/* push rdi; push rsi; mov rdi, rcx; mov rsi, rdx; MARK; cld; test esp, esp; pop rsi; pop rdi; ret */
#define VIRTUOSO_CODE(name, nn)                                                                     \
    __declspec(allocate(".vtext")) static const unsigned char name[] = {                            \
        0x57, 0x56, 0x48, 0x89, 0xcf, 0x48, 0x89, 0xd6, 0x0f, 0x1f, 0x80, nn, 0x00, 0x54, 0x56,     \
        0xfc, 0x85, 0xe4, 0x5e, 0x5f, 0xc3}
#elif defined(_M_IX86)
/* push edi; push esi; mov edi, [esp+12]; mov esi, [esp+16]; MARK; cld; test esp, esp; pop esi; pop edi; ret */
#define VIRTUOSO_CODE(name, nn)                                                                     \
    __declspec(allocate(".vtext")) static const unsigned char name[] = {                            \
        0x57, 0x56, 0x8b, 0x7c, 0x24, 0x0c, 0x8b, 0x74, 0x24, 0x10, 0x0f, 0x1f, 0x80, nn, 0x00,     \
        0x54, 0x56, 0xfc, 0x85, 0xe4, 0x5e, 0x5f, 0xc3}
#else
#error "virtuoso.h: x86 and x64 only"
#endif

VIRTUOSO_CODE(virtuoso_begin_code, 0x01);
VIRTUOSO_CODE(virtuoso_end_code, 0x02);
VIRTUOSO_CODE(virtuoso_input_code, 0x03);
VIRTUOSO_CODE(virtuoso_output_code, 0x04);

#define VIRTUOSO_CALL(code, a, b)                                                                   \
    ((virtuoso_fn)(const void *volatile)(code))((const void *)(a), (const void *)(b))
#define virtuoso_begin(name)                                                                        \
    (virtuoso_touch(name), VIRTUOSO_CALL(virtuoso_begin_code, name, VIRTUOSO_ABI))
#define virtuoso_end() VIRTUOSO_CALL(virtuoso_end_code, 0, 0)
#define virtuoso_input(spec, variable) (virtuoso_touch(spec), VIRTUOSO_CALL(virtuoso_input_code, spec, variable))
#define virtuoso_output(spec, variable) (virtuoso_touch(spec), VIRTUOSO_CALL(virtuoso_output_code, spec, variable))

#else
#error "virtuoso.h: unknown compiler; see docs/markers.md for the bytes of a mark"
#endif

#endif
