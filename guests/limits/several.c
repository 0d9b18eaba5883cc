/* Two lists and a string in one program. */
#include <inttypes.h>
#include <sys/utsname.h>

#include "work.h"

static uint64_t bases[256];
static uint32_t modules;
static char host[65];

int main(void)
{
    declare_pids();
    virtuoso_output("modules:u32", &modules);
    virtuoso_output("bases:u64[modules<=256]", bases);
    virtuoso_output("host:cstr[65]", host);
    virtuoso_begin("several");
    list_pids();
    FILE *file = fopen("/proc/modules", "r");
    if (file) {
        char line[512];
        while (fgets(line, sizeof line, file) && modules < 256)
            if (sscanf(line, "%*s %*s %*s %*s %*s %" SCNx64, &bases[modules]) == 1)
                modules++;
        fclose(file);
    } else {
        rc = -errno;
    }
    struct utsname name;
    if (uname(&name) == 0)
        strcpy(host, name.nodename);
    virtuoso_end();

    printf("rc %d count %u modules %u host %s\n", rc, count, modules, host);
    return 0;
}
