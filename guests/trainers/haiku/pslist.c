/* All teams. */
#include <OS.h>
#include <stdint.h>
#include <stdio.h>

#include "virtuoso.h"

static uint32_t pids[4096];
static uint32_t count;
static int32_t rc;

int main(void)
{
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("count:u32", &count);
    virtuoso_output("pids:u32[count<=4096]", pids);
    virtuoso_begin("pslist");
    /* The last call says B_BAD_VALUE; rc: 0, or another error */
    team_info team;
    int32 cookie = 0;
    status_t status = B_OK;
    while (count < 4096 && (status = get_next_team_info(&cookie, &team)) == B_OK)
        pids[count++] = team.team;
    rc = status == B_BAD_VALUE ? 0 : status;
    virtuoso_end();

    printf("rc %d count %u:", (int)rc, (unsigned)count);
    for (uint32_t i = 0; i < count; i++)
        printf(" %u", (unsigned)pids[i]);
    printf("\n");
    return 0;
}
