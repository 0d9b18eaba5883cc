/* Holds sockets of all kinds, files that are deleted, mapped, or called as if they were, and says on the console what each socket is:
 * `=== SOCKET PROTOCOL STATE LOCAL REMOTE UID INODE DESCRIPTOR`. For a network namespace of its own: unshare -n holder WHERE. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static void shown(char *text, size_t size, int fd, int peer)
{
    struct sockaddr_storage it;
    socklen_t length = sizeof it;
    char address[INET6_ADDRSTRLEN] = "";
    if ((peer ? getpeername : getsockname)(fd, (struct sockaddr *)&it, &length) != 0)
        snprintf(text, size, "-");
    else if (it.ss_family == AF_INET) {
        struct sockaddr_in *narrow = (struct sockaddr_in *)&it;
        inet_ntop(AF_INET, &narrow->sin_addr, address, sizeof address);
        snprintf(text, size, "%s:%d", address, ntohs(narrow->sin_port));
    } else if (it.ss_family == AF_INET6) {
        struct sockaddr_in6 *wide = (struct sockaddr_in6 *)&it;
        inet_ntop(AF_INET6, &wide->sin6_addr, address, sizeof address);
        snprintf(text, size, "[%s]:%d", address, ntohs(wide->sin6_port));
    } else
        snprintf(text, size, "-");
}

static void say(const char *protocol, const char *state, int fd)
{
    char local[64], remote[64];
    struct stat about;
    shown(local, sizeof local, fd, 0);
    shown(remote, sizeof remote, fd, 1);
    fstat(fd, &about);
    printf("=== SOCKET %s %s %s %s %d %lu %d\n", protocol, state, local, remote, (int)about.st_uid,
           (unsigned long)about.st_ino, fd);
}

/* A socket that is bound to a port of the loopback address. */
static int bound(int wide, int type, int port)
{
    struct sockaddr_in narrow_address = { .sin_family = AF_INET, .sin_port = htons(port),
                                          .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct sockaddr_in6 wide_address = { .sin6_family = AF_INET6, .sin6_port = htons(port),
                                         .sin6_addr = IN6ADDR_LOOPBACK_INIT };
    int fd = socket(wide ? AF_INET6 : AF_INET, type, 0);
    if (wide)
        bind(fd, (struct sockaddr *)&wide_address, sizeof wide_address);
    else
        bind(fd, (struct sockaddr *)&narrow_address, sizeof narrow_address);
    return fd;
}

/* A socket of this system with a name of these bytes. */
static int named(int type, const char *name, size_t length)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, type, 0);
    memcpy(address.sun_path, name, length);
    bind(fd, (struct sockaddr *)&address, offsetof(struct sockaddr_un, sun_path) + length);
    return fd;
}

static void sockets(const char *where)
{
    char path[64];
    int pair[2];
    struct sockaddr_storage it;
    socklen_t length = sizeof it;

    int listening = bound(0, SOCK_STREAM, 8080);
    listen(listening, 5);
    say("tcp", "LISTEN", listening);
    int client = socket(AF_INET, SOCK_STREAM, 0);
    getsockname(listening, (struct sockaddr *)&it, &length);
    connect(client, (struct sockaddr *)&it, length);
    say("tcp", "ESTABLISHED", client);
    say("tcp", "ESTABLISHED", accept(listening, 0, 0));

    seteuid(1000);
    int wide = bound(1, SOCK_STREAM, 8081);
    listen(wide, 5);
    say("tcp6", "LISTEN", wide);
    say("udp", "UNCONNECTED", bound(0, SOCK_DGRAM, 5353));
    int connected = bound(1, SOCK_DGRAM, 5354);
    struct sockaddr_in6 other = { .sin6_family = AF_INET6, .sin6_port = htons(9), .sin6_addr = IN6ADDR_LOOPBACK_INIT };
    connect(connected, (struct sockaddr *)&other, sizeof other);
    say("udp6", "ESTABLISHED", connected);
    seteuid(0);

    int stream = named(SOCK_STREAM, path, snprintf(path, sizeof path, "/tmp/holder of %s", where) + 1);
    listen(stream, 5);
    say("unix", "LISTEN", stream);
    /* What a terminal would obey, and a line that looks like another socket's. */
    const char hostile[] = "\0\033[31m\nnot a line\xff";
    int packets = named(SOCK_SEQPACKET, hostile, sizeof hostile - 1);
    listen(packets, 5);
    say("unix", "LISTEN", packets);
    say("unix", "UNCONNECTED", socket(AF_UNIX, SOCK_DGRAM, 0));
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    say("unix", "CONNECTED", pair[0]);
    say("unix", "CONNECTED", pair[1]);
    /* The kernel lists those that have an address. Here that is a family, a number that it chooses, and no groups. */
    const unsigned char netlink_address[12] = { AF_NETLINK };
    int netlink = socket(AF_NETLINK, SOCK_RAW, 0);
    bind(netlink, (const struct sockaddr *)netlink_address, sizeof netlink_address);
    say("netlink", "UNCONNECTED", netlink);
}

static void files(const char *where)
{
    char path[64];
    snprintf(path, sizeof path, "/tmp/mapped by %s", where);
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    ftruncate(fd, 4096);
    mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    unlink(path);
    snprintf(path, sizeof path, "/tmp/kept by %s (deleted)", where);
    open(path, O_WRONLY | O_CREAT, 0600);
    epoll_create1(0);
    memfd_create("note", 0);
}

int main(int argc, char **argv)
{
    const char *where = argc > 1 ? argv[1] : "root";
    struct ifreq loopback = { .ifr_name = "lo", .ifr_flags = IFF_UP };
    setvbuf(stdout, 0, _IONBF, 0);
    int any = socket(AF_INET, SOCK_DGRAM, 0);
    ioctl(any, SIOCSIFFLAGS, &loopback);
    close(any);
    sockets(where);
    files(where);
    prctl(PR_SET_NAME, "a) R 1 (b");
    printf("=== HOLDER %s %d\n", where, (int)getpid());
    for (;;)
        pause();
}
