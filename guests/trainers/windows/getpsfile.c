/* The executable of a process: getpsfile PID. */
#include <stdio.h>
#include <stdlib.h>

#include "native.h"
#include "virtuoso.h"

/* Not on the stack: there, their addresses would depend on the length of the arguments, and recordings could not be merged. */
static uint32_t pid;
static int32_t rc;
static char path[1024];
static ACCESS_MASK rights;

/* rc: the path's length in characters, or the negative error. Characters that are not ASCII become '?'. */
static void ask(void)
{
    static union {
        UNICODE_STRING text;
        char bytes[2 * sizeof path];
    } image;
    static OBJECT_ATTRIBUTES attributes = {.Length = sizeof attributes};
    struct { HANDLE process, thread; } client = {(HANDLE)(uintptr_t)pid, NULL};
    HANDLE process = NULL;
    ULONG used = 0;
    path[0] = 0;
    rc = NtOpenProcess(&process, rights, &attributes, &client);
    if (rc < 0)
        return;
    rc = NtQueryInformationProcess(process, (PROCESSINFOCLASS)PROCESS_IMAGE, &image, sizeof image, &used);
    NtClose(process);
    if (rc < 0)
        return;
    ULONG length = image.text.Length / sizeof(WCHAR);
    if (length >= sizeof path)
        length = sizeof path - 1;
    for (ULONG i = 0; i < length; i++)
        path[i] = image.text.Buffer[i] < 128 ? (char)image.text.Buffer[i] : '?';
    path[length] = 0;
    rc = (int32_t)length;
}

int main(int argc, char **argv)
{
    pid = argc > 1 ? strtoul(argv[1], NULL, 10) : 4;
    /* The right to ask just that came with version 6. */
    rights = (GetVersion() & 0xff) >= 6 ? PROCESS_QUERY_LIMITED_INFORMATION : PROCESS_QUERY_INFORMATION;
    ask();

    virtuoso_input("pid:u32", &pid);
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("path:cstr[1024]", path);
    virtuoso_begin("getpsfile");
    ask();
    virtuoso_end();

    printf("pid %u rc %d path %s\n", (unsigned)pid, (int)rc, path);
    return 0;
}
