/* Asks a device through memory: a page of physical addresses where no RAM is. */
#include <sys/mman.h>

#include "work.h"

static uint32_t word;

int main(void)
{
    int fd = open("/dev/mem", O_RDONLY | O_SYNC);
    volatile uint32_t *device = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0xf0000000);
    if (device == MAP_FAILED) {
        perror("mmio");
        return 1;
    }
    word = *device;

    virtuoso_output("word:u32", &word);
    virtuoso_begin("mmio");
    word = *device + 1;
    virtuoso_end();

    printf("word %x\n", word);
    return 0;
}
