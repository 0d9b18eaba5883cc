/* The program of a process: its number is the argument. */
#include "program.h"
#include "virtuoso.h"

static uint32_t pid;
static int32_t rc;
static char path[128];

int main(uint32_t argument)
{
    pid = argument;
    virtuoso_input("pid:u32", &pid);
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("path:cstr[128]", path);
    virtuoso_begin("getpsfile");
    rc = call(CALL_PATH, pid, (uint32_t)path, sizeof path);
    virtuoso_end();

    print_number("getpsfile: ", rc);
    print(" ");
    print(path);
    print("\n");
    return 0;
}
