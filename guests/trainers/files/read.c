/* Bytes of a file: read PATH [OFFSET [LENGTH]].
 *
 * Links are followed, as `cat` does; name what they lead to if that is not wanted. A file may give less at a time than is asked
 * for, so reading goes on until LENGTH bytes are there or none come. `end` says that none came: a file's size says nothing of
 * most files of procfs and sysfs.
 */
#include "linux-calls.h"
#include "virtuoso.h"

#define MOST 1048576

static char path[4096];
static uint64_t offset;
static uint32_t length;
static int32_t rc;
static uint32_t count, end;
/* A byte more than is ever read: a full list is one that may have been cut. */
static char data[MOST + 1];

static long read_more(int file, int seekable)
{
    return seekable ? read_at(file, data + count, length - count, offset + count)
                    : call(NR_read, file, data + count, length - count);
}

int main(int argc, char **argv)
{
    copy_text(path, sizeof path, argument(argc, argv, 1, "/proc/version"));
    offset = number_of(argument(argc, argv, 2, "0"));
    length = (uint32_t)number_of(argument(argc, argv, 3, "1048576"));
    touch_stack();

    virtuoso_input("path:cstr[4096]", path);
    virtuoso_input("offset:u64", &offset);
    virtuoso_input("length:u32", &length);
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("end:u32", &end);
    virtuoso_output("count:u32", &count);
    virtuoso_output("data:bytes[count<=1048577]", data);
    virtuoso_begin("read");
    int file = open_quietly(path, 0), seekable = 1;
    rc = file < 0 ? file : length > MOST ? -EINVAL : 0;
    while (rc == 0 && !end && count < length) {
        long got = read_more(file, seekable);
        if (got == -ESPIPE && seekable && offset == 0) {
            seekable = 0;
            continue;
        }
        if (got < 0 && !count)
            rc = (int32_t)got;
        /* What is there already counts; the error comes again where it was. */
        if (got < 0)
            break;
        end = got == 0;
        count += (uint32_t)got;
    }
    virtuoso_end();
    /* Behind the mark: closing frees what was opened, which may wake others and end a run that had its answer. */
    if (file >= 0)
        call(NR_close, file);
    return 0;
}
