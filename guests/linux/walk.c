/*
 * Walks directories and prints what the system calls of this machine say of every file: the truth that
 * `cargo xtask files` compares a capture with. Independent of the file programs: a C library, another order of calls.
 *
 * walk [-p] PATH...   with -p to the I/O port 0xe9 (QEMU's debugcon), which needs no driver and leaves no file.
 *
 * After a walk it says so on standard output and takes a command from standard input: `again` walks again, `drop` empties the caches,
 * anything else ends it. It waits in between so that it is there when the guest is captured, as it is when it walks: what the kernel
 * counts (processes, references) is then the same.
 *
 * A line a file, three fields with tabs between them; bytes that are not printable, spaces and backslashes are \xNN.
 *   path
 *   mode(octal) links user group inode size blocks major:minor modified changed, or E and an error number
 *   L and the target; D, how many entries, `:` and the hash of their names and types; F, how many bytes, `+` if there were more, `:` and
 *   their hash; E and an error number; T where it took too long; - for what has no content that can be read
 * Hashes are SHA-256; a directory's is that of its sorted names, each with a NUL and its type's letter behind it.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <unistd.h>

/* The most that is read of a file that has a size, and of one of procfs, which has none. */
#define MOST (16u << 20)
#define MOST_WITHOUT_SIZE (1u << 20)

struct hash {
    uint32_t state[8];
    unsigned char block[64];
    uint64_t length;
};

static const uint32_t rounds[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t turned(uint32_t value, int by)
{
    return value >> by | value << (32 - by);
}

static void hash_block(struct hash *hash)
{
    uint32_t w[64], s[8];

    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)hash->block[4 * i] << 24 | hash->block[4 * i + 1] << 16 | hash->block[4 * i + 2] << 8 |
               hash->block[4 * i + 3];
    for (int i = 16; i < 64; i++)
        w[i] = w[i - 16] + (turned(w[i - 15], 7) ^ turned(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7] +
               (turned(w[i - 2], 17) ^ turned(w[i - 2], 19) ^ w[i - 2] >> 10);
    memcpy(s, hash->state, sizeof s);
    for (int i = 0; i < 64; i++) {
        uint32_t a = s[7] + (turned(s[4], 6) ^ turned(s[4], 11) ^ turned(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6])) + rounds[i] +
                     w[i];
        uint32_t b = (turned(s[0], 2) ^ turned(s[0], 13) ^ turned(s[0], 22)) + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));

        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += a;
        s[0] = a + b;
    }
    for (int i = 0; i < 8; i++)
        hash->state[i] += s[i];
}

static void hash_begin(struct hash *hash)
{
    static const uint32_t first[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };

    memcpy(hash->state, first, sizeof first);
    hash->length = 0;
}

static void hash_add(struct hash *hash, const void *bytes, size_t length)
{
    for (const unsigned char *at = bytes; length; at++, length--) {
        hash->block[hash->length++ % 64] = *at;
        if (hash->length % 64 == 0)
            hash_block(hash);
    }
}

static void hash_text(struct hash *hash, char *text)
{
    uint64_t bits = hash->length * 8;
    unsigned char end[8];

    hash_add(hash, "\x80", 1);
    while (hash->length % 64 != 56)
        hash_add(hash, "", 1);
    for (int i = 0; i < 8; i++)
        end[i] = bits >> (56 - 8 * i);
    hash_add(hash, end, 8);
    for (int i = 0; i < 8; i++)
        sprintf(text + 8 * i, "%08x", hash->state[i]);
}

static int port;

static void put(const char *text, size_t length)
{
    if (port)
        outsb(0xe9, text, length);
    else
        fwrite(text, 1, length, stdout);
}

static void put_escaped(const char *text)
{
    for (; *text; text++) {
        char escaped[5];
        unsigned char byte = *text;

        if (byte > ' ' && byte < 0x7f && byte != '\\')
            put(text, 1);
        else
            put(escaped, sprintf(escaped, "\\x%02x", byte));
    }
}

static char path[65536];
static char buffer[1 << 16];
static volatile int late;
static unsigned long count;

static void ring(int number)
{
    (void)number;
    late = 1;
}

/* Lets what waits end after a while, and again should the first time come too early. */
static void watch(int on)
{
    struct itimerval timer = { { 1, 0 }, { 3, 0 } };

    if (!on)
        memset(&timer, 0, sizeof timer);
    late = 0;
    setitimer(ITIMER_REAL, &timer, NULL);
}

static void put_error(void)
{
    char text[32];

    put(text, late ? sprintf(text, "T") : sprintf(text, "E%d", errno));
}

static void file(const struct stat *is)
{
    struct hash hash;
    size_t total = 0, most = is->st_size ? MOST : MOST_WITHOUT_SIZE;
    ssize_t got = 0;
    char text[128], sum[65];
    int fd;

    watch(1);
    fd = open(path, O_RDONLY | O_NONBLOCK | O_NOATIME | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) {
        put_error();
        return watch(0);
    }
    hash_begin(&hash);
    while (total < most && (got = read(fd, buffer, sizeof buffer < most - total ? sizeof buffer : most - total)) > 0) {
        hash_add(&hash, buffer, got);
        total += got;
    }
    if (got < 0) {
        put_error();
    } else {
        int more = got > 0 && read(fd, buffer, 4096) > 0;

        hash_text(&hash, sum);
        put(text, sprintf(text, "F%zu%s:%s", total, more ? "+" : "", sum));
    }
    watch(0);
    close(fd);
}

static char letter(unsigned char type)
{
    static const char letters[] = { [DT_FIFO] = 'p', [DT_CHR] = 'c', [DT_DIR] = 'd', [DT_BLK] = 'b', [DT_REG] = '-', [DT_LNK] = 'l',
                                    [DT_SOCK] = 's' };

    return type < sizeof letters && letters[type] ? letters[type] : '?';
}

struct names {
    char **all;
    size_t count, room;
};

static int order(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names of a directory, sorted. Behind each a NUL and its type's letter. */
static int list(struct names *names)
{
    DIR *directory = opendir(path);

    if (!directory)
        return -1;
    for (;;) {
        struct dirent *entry;

        errno = 0;
        entry = readdir(directory);
        if (!entry)
            break;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
            continue;
        if (names->count == names->room) {
            names->room = names->room * 2 + 64;
            names->all = realloc(names->all, names->room * sizeof *names->all);
        }
        names->all[names->count] = malloc(strlen(entry->d_name) + 3);
        sprintf(names->all[names->count], "%s", entry->d_name);
        names->all[names->count][strlen(entry->d_name) + 1] = letter(entry->d_type);
        names->count++;
    }
    if (errno) {
        int error = errno;

        closedir(directory);
        errno = error;
        return -1;
    }
    closedir(directory);
    qsort(names->all, names->count, sizeof *names->all, order);
    return 0;
}

static void walk(void);

static void directory(void)
{
    struct names names = { 0 };
    struct hash hash;
    size_t length = strlen(path);
    char text[128], sum[65];

    watch(1);
    if (list(&names) < 0) {
        put_error();
        watch(0);
        return put("\n", 1);
    }
    watch(0);
    hash_begin(&hash);
    for (size_t i = 0; i < names.count; i++)
        hash_add(&hash, names.all[i], strlen(names.all[i]) + 2);
    hash_text(&hash, sum);
    put(text, sprintf(text, "D%zu:%s\n", names.count, sum));
    for (size_t i = 0; i < names.count; i++) {
        if (length + strlen(names.all[i]) + 2 <= 4095) {
            sprintf(path + length, "%s%s", length > 1 ? "/" : "", names.all[i]);
            walk();
        }
        path[length] = 0;
        free(names.all[i]);
    }
    free(names.all);
}

static void walk(void)
{
    struct stat is;
    char text[512];

    /* All memory, which changes while it is read; what waits for a reader; and what is elsewhere, too, by a mount of its own. */
    if (!strcmp(path, "/proc/kcore") || !strcmp(path, "/proc/kmsg") || !strcmp(path, "/sys/kernel/debug/tracing"))
        return;
    put_escaped(path);
    put("\t", 1);
    count++;
    if (lstat(path, &is) < 0) {
        put_error();
        return put("\t-\n", 3);
    }
    put(text, sprintf(text, "%o %ju %u %u %ju %jd %jd %u:%u %jd.%09ld %jd.%09ld\t", is.st_mode, (uintmax_t)is.st_nlink, is.st_uid, is.st_gid,
                      (uintmax_t)is.st_ino, (intmax_t)is.st_size, (intmax_t)is.st_blocks, major(is.st_rdev), minor(is.st_rdev),
                      (intmax_t)is.st_mtim.tv_sec, is.st_mtim.tv_nsec, (intmax_t)is.st_ctim.tv_sec, is.st_ctim.tv_nsec));
    if (S_ISDIR(is.st_mode))
        return directory();
    if (S_ISLNK(is.st_mode)) {
        ssize_t got = readlink(path, buffer, sizeof buffer - 1);

        if (got < 0) {
            put_error();
        } else {
            buffer[got] = 0;
            put("L", 1);
            put_escaped(buffer);
        }
    } else if (S_ISREG(is.st_mode)) {
        file(&is);
    } else {
        put("-", 1);
    }
    put("\n", 1);
}

static void walk_all(char **roots)
{
    char text[64];

    count = 0;
    put(text, sprintf(text, "=== WALK BEGIN %d\n", getpid()));
    for (; *roots; roots++) {
        snprintf(path, sizeof path, "%s", *roots);
        walk();
    }
    put(text, sprintf(text, "=== WALK END %lu\n", count));
}

static int drop(void)
{
    int fd;

    sync();
    fd = open("/proc/sys/vm/drop_caches", O_WRONLY);
    return fd < 0 || write(fd, "3", 1) != 1 || close(fd) < 0;
}

int main(int argc, char **argv)
{
    struct sigaction action = { .sa_handler = ring };
    char command[64] = "again\n";

    if (argc > 1 && !strcmp(argv[1], "-p")) {
        argv++;
        if (ioperm(0xe9, 1, 1) < 0) {
            perror("ioperm");
            return 1;
        }
        port = 1;
    }
    sigaction(SIGALRM, &action, NULL);
    do {
        if (!strcmp(command, "again\n"))
            walk_all(argv + 1);
        else if (strcmp(command, "drop\n") || drop())
            return 1;
        printf("=== READY\n");
        fflush(stdout);
    } while (fgets(command, sizeof command, stdin));
    return 0;
}
