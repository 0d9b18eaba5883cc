/* The name of the driver at a base address: getdrvfile ADDRESS. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "native.h"
#include "virtuoso.h"

/* Not on the stack: there, their addresses would depend on the length of the arguments, and recordings could not be merged. */
static uint64_t base;
static int32_t rc;
static char name[256];

/* rc: 0, the negative error, or -2 when no driver is there */
static void ask(void)
{
    rc = query_modules();
    if (rc < 0)
        return;
    rc = -2;
    for (ULONG i = 0; i < modules.count && i < 1024; i++) {
        const struct module *it = &modules.list[i];
        if ((uintptr_t)it->base != base)
            continue;
        rc = 0;
        ULONG to = 0;
        for (ULONG from = it->name_at; from < sizeof it->path && it->path[from]; from++)
            name[to++] = it->path[from];
        name[to < sizeof name ? to : sizeof name - 1] = 0;
        return;
    }
}

int main(int argc, char **argv)
{
    base = argc > 1 ? strtoull(argv[1], NULL, 16) : 0;
    ask();

    virtuoso_input("base:u64", &base);
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("name:cstr[256]", name);
    virtuoso_begin("getdrvfile");
    name[0] = 0;
    ask();
    virtuoso_end();

    printf("base %" PRIx64 " rc %d name %s\n", base, (int)rc, name);
    return 0;
}
