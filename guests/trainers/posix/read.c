/* Bytes of a file: read PATH [OFFSET [LENGTH]]. As guests/trainers/files/read.c. */
#include "paths.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "virtuoso.h"

#define MOST 1048576

static uint64_t offset;
static uint32_t length, count, end;
/* A byte more than is ever read: a full list is one that may have been cut. */
static char data[MOST + 1];

int main(int argc, char **argv)
{
    choose_path(argc, argv, "/etc/passwd");
    offset = argc > 2 ? strtoull(argv[2], NULL, 0) : 0;
    length = argc > 3 ? (uint32_t)strtoull(argv[3], NULL, 0) : MOST;

    virtuoso_input("path:cstr[4096]", path);
    virtuoso_input("offset:u64", &offset);
    virtuoso_input("length:u32", &length);
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("end:u32", &end);
    virtuoso_output("count:u32", &count);
    virtuoso_output("data:bytes[count<=1048577]", data);
    virtuoso_begin("read");
    int file = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    rc = file < 0 ? -errno : length > MOST ? -EINVAL : 0;
    /* What cannot be sought in is read from its beginning. */
    if (rc == 0 && offset && lseek(file, (off_t)offset, SEEK_SET) < 0)
        rc = -errno;
    while (rc == 0 && !end && count < length) {
        ssize_t got = read(file, data + count, length - count);
        if (got < 0 && !count)
            rc = -errno;
        /* What is there already counts; the error comes again where it was. */
        if (got < 0)
            break;
        end = got == 0;
        count += (uint32_t)got;
    }
    virtuoso_end();
    /* Behind the mark: closing frees what was opened, which may wake others and end a run that had its answer. */
    if (file >= 0)
        close(file);
    return 0;
}
