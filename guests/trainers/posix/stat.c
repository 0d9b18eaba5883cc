/* What is known of a file: stat PATH [FOLLOW]. With FOLLOW 0, as by default, a symbolic link's own. As guests/trainers/files/stat.c,
 * but for when a file was made, its mount and its attributes, which POSIX does not tell: `mask` has no bits for these. */
#include "paths.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <sys/types.h>
#ifdef __linux__
#include <sys/sysmacros.h>
#endif

#include "virtuoso.h"

/* The bits of Linux's statx(2) for what is told: all that POSIX has. */
#define BASIC 0x7ff

static uint32_t follow, mask;
static uint16_t mode;
static uint32_t nlink, uid, gid, block_size, dev_major, dev_minor, rdev_major, rdev_minor;
static uint64_t ino, size, blocks, attributes, mount;
static int64_t atime, mtime, ctime, btime;
static uint32_t atime_nsec, mtime_nsec, ctime_nsec, btime_nsec;

static void take(const struct stat *found)
{
    mask = BASIC;
    mode = (uint16_t)found->st_mode;
    nlink = (uint32_t)found->st_nlink;
    uid = found->st_uid;
    gid = found->st_gid;
    ino = found->st_ino;
    size = (uint64_t)found->st_size;
    blocks = (uint64_t)found->st_blocks;
    block_size = (uint32_t)found->st_blksize;
#ifdef major
    dev_major = (uint32_t)major(found->st_dev);
    dev_minor = (uint32_t)minor(found->st_dev);
    rdev_major = (uint32_t)major(found->st_rdev);
    rdev_minor = (uint32_t)minor(found->st_rdev);
#else
    dev_minor = (uint32_t)found->st_dev;
    rdev_minor = (uint32_t)found->st_rdev;
#endif
    atime = found->st_atim.tv_sec;
    atime_nsec = (uint32_t)found->st_atim.tv_nsec;
    mtime = found->st_mtim.tv_sec;
    mtime_nsec = (uint32_t)found->st_mtim.tv_nsec;
    ctime = found->st_ctim.tv_sec;
    ctime_nsec = (uint32_t)found->st_ctim.tv_nsec;
}

int main(int argc, char **argv)
{
    struct stat found;
    choose_path(argc, argv, "/");
    follow = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 0) : 0;

    virtuoso_input("path:cstr[4096]", path);
    virtuoso_input("follow:u32", &follow);
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("mask:u32", &mask);
    virtuoso_output("mode:u16", &mode);
    virtuoso_output("nlink:u32", &nlink);
    virtuoso_output("uid:u32", &uid);
    virtuoso_output("gid:u32", &gid);
    virtuoso_output("ino:u64", &ino);
    virtuoso_output("size:u64", &size);
    virtuoso_output("blocks:u64", &blocks);
    virtuoso_output("block_size:u32", &block_size);
    virtuoso_output("dev_major:u32", &dev_major);
    virtuoso_output("dev_minor:u32", &dev_minor);
    virtuoso_output("rdev_major:u32", &rdev_major);
    virtuoso_output("rdev_minor:u32", &rdev_minor);
    virtuoso_output("attributes:u64", &attributes);
    virtuoso_output("mount:u64", &mount);
    virtuoso_output("atime:i64", &atime);
    virtuoso_output("atime_nsec:u32", &atime_nsec);
    virtuoso_output("mtime:i64", &mtime);
    virtuoso_output("mtime_nsec:u32", &mtime_nsec);
    virtuoso_output("ctime:i64", &ctime);
    virtuoso_output("ctime_nsec:u32", &ctime_nsec);
    virtuoso_output("btime:i64", &btime);
    virtuoso_output("btime_nsec:u32", &btime_nsec);
    virtuoso_begin("stat");
    int got = follow ? stat(path, &found) : lstat(path, &found);
    rc = got < 0 ? -errno : 0;
    if (rc == 0)
        take(&found);
    virtuoso_end();
    return 0;
}
