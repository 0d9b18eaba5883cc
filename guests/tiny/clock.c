/* The time: read from the clock chip once, then counted by timer interrupts. */
#include "kernel.h"

#define TICK_NANOSECONDS 10000000
#define TICK_DIVISOR 11932

/* Shown to every process at TIME_PAGE, read-only; nothing else lies on the page. */
struct time time_page[4096 / sizeof(struct time)] __attribute__((aligned(4096)));

/* The same, on a page that no instruction names: only this variable leads there. */
struct time *found_time;

static uint32_t clock_register(uint8_t index)
{
    out(0x70, index);
    return in(0x71);
}

static uint32_t decimal(uint8_t index)
{
    uint32_t value = clock_register(index);
    return (value >> 4) * 10 + (value & 15);
}

uint32_t chip_seconds(void)
{
    return decimal(0);
}

void start_clock(void)
{
    uint32_t seconds, minutes, hours, day, month, year;
    do {
        while (clock_register(10) & 0x80)
            ;
        seconds = decimal(0);
        minutes = decimal(2);
        hours = decimal(4);
        day = decimal(7);
        month = decimal(8);
        year = decimal(9) + 100 * decimal(0x32);
    } while (decimal(0) != seconds);
    /* Days since 1970 of the proleptic Gregorian calendar, with years that begin in March. */
    if (month < 3)
        year--, month += 12;
    uint32_t days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * (month - 3) + 2) / 5 + day - 1;
    now.seconds = ((days - 719468) * 24 + hours) * 3600 + minutes * 60 + seconds;
    found_time = physical(page());
    *found_time = now;

    /* Interrupt controllers: vectors from 0x20 on, the timer alone. */
    static const uint8_t setup[][2] = {
        {0x20, 0x11}, {0xa0, 0x11}, {0x21, 0x20}, {0xa1, 0x28}, {0x21, 4}, {0xa1, 2},
        {0x21, 1},    {0xa1, 1},    {0x21, 0xfe}, {0xa1, 0xff},
    };
    for (uint32_t i = 0; i < sizeof setup / sizeof *setup; i++)
        out(setup[i][0], setup[i][1]);
    out(0x43, 0x34);
    out(0x40, TICK_DIVISOR & 0xff);
    out(0x40, TICK_DIVISOR >> 8);
}

void timer(void)
{
    now.nanoseconds += TICK_NANOSECONDS;
    if (now.nanoseconds >= 1000000000) {
        now.nanoseconds = 0;
        now.seconds++;
    }
    *found_time = now;
    poll_console();
    out(0x20, 0x20);
}
