/* The kernel's public interface: `int 0x40`, or a far call to 0x33:0, with a number in EAX and arguments in EBX, ECX, EDX; the result is in EAX,
 * negative for an error. Addresses are offsets in the caller's data segment.
 */
#ifndef CALLS_H
#define CALLS_H

enum call {
    CALL_EXIT,
    CALL_YIELD,
    CALL_WAIT,          /* for ever: nothing wakes a process */
    CALL_GETPID,
    CALL_PROCESSES,     /* buffer, most: their numbers; how many */
    CALL_PATH,          /* number, buffer, size: its program; the length */
    CALL_DRIVERS,       /* buffer, most: their addresses; how many */
    CALL_DRIVER_NAME,   /* address, buffer, size: its name; the length */
    CALL_TIME,          /* buffer: seconds since 1970, nanoseconds */
    CALL_WRITE,         /* text */
    CALL_SPAWN,         /* program, name, path, argument, as four words; its number */
    CALL_LOAD,          /* name, size: a driver; its address */
    CALL_UNLOAD,        /* address */
    CALL_COMMAND_LINE,  /* buffer, size */
    CALL_TRUTH,         /* the kernel prints all it knows of itself */
    CALL_RESET,         /* ends the machine */
    CALL_CHIP_SECONDS,  /* what the clock chip itself says, by its ports: seconds of the minute */
};

/* Where every process may read the time; the second page the kernel itself finds by a pointer only. */
#define TIME_PAGE 0xe0000
#define FOUND_TIME_PAGE 0xe8000

#define NO_CALL (-1)
#define BAD_ADDRESS (-2)
#define TOO_SMALL (-3)
#define NO_PROCESS (-4)
#define NO_PROGRAM (-5)
#define NO_DRIVER (-6)

#endif
