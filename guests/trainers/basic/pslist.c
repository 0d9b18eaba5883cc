/* All PIDs. */
#include "linux-calls.h"
#include "virtuoso.h"

#define CHUNK 16384

static uint32_t pids[65536];
static uint32_t count;
static int32_t rc;
static char chunk[CHUNK] __attribute__((aligned(8)));

/* A number for a name: a process. */
static void take(const char *name)
{
    if (is_digit(*name) && count < 65536)
        pids[count++] = (uint32_t)number_of(name);
}

int main(UNUSED int argc, UNUSED char **argv)
{
    touch(chunk, sizeof chunk);
    touch_stack();

    virtuoso_output("rc:i32", &rc);
    virtuoso_output("count:u32", &count);
    virtuoso_output("pids:u32[count<=65536]", pids);
    virtuoso_begin("pslist");
    int directory = -1;
    rc = procfs_error();
    if (rc == 0) {
        directory = open_quietly("/proc", O_DIRECTORY);
        rc = directory < 0 ? directory : 0;
    }
    while (rc == 0 && count < 65536) {
        long got = call(NR_getdents64, directory, chunk, CHUNK);
        rc = got < 0 ? (int32_t)got : 0;
        if (got <= 0)
            break;
        for (long at = 0; at < got; at += ((const struct entry *)(chunk + at))->size)
            take(((const struct entry *)(chunk + at))->name);
    }
    if (directory >= 0)
        call(NR_close, directory);
    virtuoso_end();
    return 0;
}
