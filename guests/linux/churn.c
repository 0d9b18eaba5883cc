/* Keeps the kernel busy for a user of uid 1000: files, directories, memory, pipes; never another process. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int main(void)
{
    char buffer[4096];
    struct stat info;
    int ends[2];

    if (setgid(1000) != 0 || setuid(1000) != 0 || pipe(ends) != 0)
        return 1;
    for (unsigned turn = 0;; turn++) {
        static const char *const names[] = { "/proc/meminfo", "/proc/self/stat", "/proc/modules", "/bin/busybox" };
        int file = open(names[turn % 4], O_RDONLY);
        if (file >= 0) {
            while (read(file, buffer, sizeof buffer) == sizeof buffer && turn % 8 == 0)
                continue;
            close(file);
        }
        stat("/proc/1/exe", &info);
        if (turn % 16 == 0) {
            DIR *directory = opendir("/proc");
            while (directory && readdir(directory))
                continue;
            if (directory)
                closedir(directory);
        }
        char *memory = mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory != MAP_FAILED) {
            for (int at = 0; at < 1 << 20; at += 4096)
                memory[at] = turn;
            munmap(memory, 1 << 20);
        }
        if (write(ends[1], buffer, sizeof buffer) > 0)
            (void)!read(ends[0], buffer, sizeof buffer);
    }
}
