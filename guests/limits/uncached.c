/* A read that must wait: from a block device, past the page cache. */
#define _GNU_SOURCE
#include "work.h"

int main(void)
{
    declare_text();
    virtuoso_begin("uncached");
    read_text("/dev/loop0", O_DIRECT);
    virtuoso_end();

    return report_text();
}
