/* The entries of a directory from a cursor on: readdir PATH [CURSOR]. As guests/trainers/files/readdir.c, but that a cursor is the
 * number of entries before it: positions that a system tells hold for one opened directory only. */
#include "paths.h"

#include <dirent.h>
#include <stdlib.h>

#include "virtuoso.h"

#define ENTRIES 8192
#define NAMES 262144

static uint64_t cursor, next;
static uint32_t count, used, end;
static uint64_t inodes[ENTRIES];
static uint8_t types[ENTRIES];
static char names[NAMES];

static void take(const struct dirent *entry)
{
    inodes[count] = entry->d_ino;
#ifdef DT_REG
    types[count] = entry->d_type;
#endif
    count++;
    const char *name = entry->d_name;
    do
        names[used++] = *name;
    while (*name++);
    next++;
}

int main(int argc, char **argv)
{
    choose_path(argc, argv, "/");
    cursor = argc > 2 ? strtoull(argv[2], NULL, 0) : 0;

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
    DIR *directory = opendir(path);
    rc = directory ? 0 : -errno;
    struct dirent *entry = NULL;
    /* As long as any name has room, and one entry more: a full list is not a whole one. */
    while (rc == 0 && count + 1 < ENTRIES && used + sizeof entry->d_name < NAMES) {
        errno = 0;
        entry = readdir(directory);
        if (entry && next < cursor)
            next++;
        else if (entry)
            take(entry);
        else {
            end = errno == 0;
            /* What is there already counts; the error comes again with the next cursor. */
            if (!end && !count)
                rc = -errno;
            break;
        }
    }
    virtuoso_end();
    /* Behind the mark, as in read.c. */
    if (directory)
        closedir(directory);
    return 0;
}
