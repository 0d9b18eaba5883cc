/* What a target's own interfaces say of it, by other calls than the trainers': processes by a snapshot of the tool
 * help library, drivers and executables by psapi. Then it stays, in the state that was asked for: "idle" (asleep),
 * "user" (computing), "kernel" (in system calls without end). As "train" it starts the trainers that have an input. */
#define PSAPI_VERSION 1
#define _WIN32_WINNT 0x0600
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>
#include <tlhelp32.h>
#include <psapi.h>

static LPVOID drivers[1024];
static char name[1024];

static void processes(void)
{
    PROCESSENTRY32 it = {.dwSize = sizeof it};
    HANDLE all = CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0);
    for (BOOL more = Process32First(all, &it); more; more = Process32Next(all, &it)) {
        HANDLE process = OpenProcess(PROCESS_QUERY_INFORMATION, FALSE, it.th32ProcessID);
        name[0] = 0;
        if (process) {
            GetProcessImageFileNameA(process, name, sizeof name);
            CloseHandle(process);
        }
        printf("process %u %s\n", (unsigned)it.th32ProcessID, name);
    }
    CloseHandle(all);
}

static void modules(void)
{
    DWORD used = 0;
    EnumDeviceDrivers(drivers, sizeof drivers, &used);
    for (DWORD i = 0; i < used / sizeof *drivers && i < 1024; i++) {
        name[0] = 0;
        GetDeviceDriverBaseNameA(drivers[i], name, sizeof name);
        printf("driver %x %s\n", (unsigned)(uintptr_t)drivers[i], name);
    }
}

/* Starts the trainer "program" about something. */
static void start(const char *program, unsigned base, unsigned what)
{
    char line[64];
    snprintf(line, sizeof line, base == 16 ? "d:\\%s.exe %x" : "d:\\%s.exe %u", program, what);
    fflush(stdout);
    system(line);
}

/* Trains the programs that have an input: the first, one in the middle, the last, and none. */
static void train(void)
{
    DWORD used = 0, pids[256];
    EnumProcesses(pids, sizeof pids, &used);
    for (DWORD count = used / sizeof *pids, i = 1; i < 4 && count; i++)
        start("getpsfile", 10, pids[i * (count - 1) / 3]);
    start("getpsfile", 10, 3);
    EnumDeviceDrivers(drivers, sizeof drivers, &used);
    for (DWORD count = used / sizeof *drivers, i = 0; i < 3 && count; i++)
        start("getdrvfile", 16, (unsigned)(uintptr_t)drivers[i * (count - 1) / 2]);
    start("getdrvfile", 16, 0x1000);
}

int main(int argc, char **argv)
{
    const char *state = argc > 1 ? argv[1] : "idle";
    FILETIME now;
    if (strcmp(state, "train") == 0) {
        train();
        return 0;
    }
    processes();
    modules();
    GetSystemTimeAsFileTime(&now);
    /* 100 ns since 1601. */
    uint64_t units = (uint64_t)now.dwHighDateTime << 32 | now.dwLowDateTime;
    printf("self %u\ncode %x\ntime %lld\nready\n", (unsigned)GetCurrentProcessId(), (unsigned)(uintptr_t)main,
           (long long)(units / 10000000) - 11644473600);
    fflush(stdout);
    for (volatile unsigned spin = 0; strcmp(state, "user") == 0; spin++)
        ;
    while (strcmp(state, "kernel") == 0)
        CloseHandle(CreateEventA(NULL, TRUE, FALSE, NULL));
    for (;;)
        Sleep(1000);
}
