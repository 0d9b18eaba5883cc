/* The entries of a directory from a cursor on: readdir PATH [CURSOR].
 *
 * The first cursor is 0; `next` is the one to go on with, and `end` says that nothing is left. Names are one after the other in
 * `names`, each with a NUL behind it, in the order of `types` and `inodes`.
 */
#include "linux-calls.h"
#include "virtuoso.h"

#define CLONE_FILES 0x400

/* An entry takes 24 bytes at least. */
#define CHUNK 16384
#define ENTRIES 8192
#define NAMES 262144

static char path[4096];
static uint64_t cursor;
static int32_t rc;
static uint32_t count, used, end;
static uint64_t next;
static uint64_t inodes[ENTRIES];
static uint8_t types[ENTRIES];
static char names[NAMES];
static char chunk[CHUNK] __attribute__((aligned(8)));

static void take(const struct entry *entry)
{
    inodes[count] = entry->inode;
    types[count] = entry->type;
    count++;
    const char *name = entry->name;
    do
        names[used++] = *name;
    while (*name++);
    next = (uint64_t)entry->next;
}

int main(int argc, char **argv)
{
    copy_text(path, sizeof path, argument(argc, argv, 1, "/proc"));
    cursor = number_of(argument(argc, argv, 2, "0"));
    touch(chunk, sizeof chunk);
    touch_stack();

    virtuoso_input("path:cstr[4096]", path);
    virtuoso_input("cursor:u64", &cursor);
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("next:u64", &next);
    virtuoso_output("end:u32", &end);
    virtuoso_output("count:u32", &count);
    virtuoso_output("used:u32", &used);
    virtuoso_output("inodes:u64[count<=8192]", inodes);
    virtuoso_output("types:u8[count<=8192]", types);
    virtuoso_output("names:bytes[used<=262144]", names);
    virtuoso_begin("readdir");
    /* An idle processor's open files are also those of the kernel's threads, of which /proc would show the directory that is
     * opened here. So it gets a table of its own first; a process that has one already keeps it. */
    int directory = (int)call(NR_unshare, CLONE_FILES);
    if (directory == 0)
        directory = open_quietly(path, O_DIRECTORY);
    rc = directory < 0 ? directory : 0;
    if (rc == 0 && cursor) {
        int64_t at = seek(directory, cursor);
        rc = at < 0 ? (int32_t)at : 0;
    }
    if (rc == 0)
        next = cursor;
    /* As long as all that one call may bring has room, and one entry more: a full list is not a whole one. */
    while (rc == 0 && !end && count + CHUNK / 24 < ENTRIES && used + CHUNK < NAMES) {
        long got = call(NR_getdents64, directory, chunk, CHUNK);
        if (got < 0 && !count) {
            rc = (int32_t)got;
            next = 0;
        }
        /* What is there already counts; the error comes again with the next cursor. */
        if (got < 0)
            break;
        end = got == 0;
        for (long at = 0; at < got;) {
            const struct entry *entry = (const struct entry *)(chunk + at);
            take(entry);
            at += entry->size;
        }
    }
    virtuoso_end();
    /* Behind the mark, as in read.c. */
    if (directory >= 0)
        call(NR_close, directory);
    return 0;
}
