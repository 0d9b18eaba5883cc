/* A read that finds its data in the page cache. */
#include "work.h"

int main(void)
{
    read_text("/limits/note", 0);
    memset(text, 0, sizeof text);
    rc = 0;

    declare_text();
    virtuoso_begin("cached");
    read_text("/limits/note", 0);
    virtuoso_end();

    return report_text();
}
