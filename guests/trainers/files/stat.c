/* What is known of a file: stat PATH [FOLLOW]. With FOLLOW 0, as by default, a symbolic link's own. */
#include "linux-calls.h"
#include "virtuoso.h"

#define AT_FDCWD (-100)
#define AT_SYMLINK_NOFOLLOW 0x100
#define AT_NO_AUTOMOUNT 0x800
#define BASIC_BIRTH_AND_MOUNT 0x1fff

struct moment {
    int64_t seconds;
    uint32_t nanoseconds;
    int32_t reserved;
};

struct statx {
    uint32_t mask, block_size;
    uint64_t attributes;
    uint32_t nlink, uid, gid;
    uint16_t mode, reserved;
    uint64_t ino, size, blocks, attributes_mask;
    struct moment atime, btime, ctime, mtime;
    uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
    uint64_t mount, spare[13];
};

static char path[4096];
static uint32_t follow;
static int32_t rc;
static struct statx found;

int main(int argc, char **argv)
{
    copy_text(path, sizeof path, argument(argc, argv, 1, "/proc"));
    follow = (uint32_t)number_of(argument(argc, argv, 2, "0"));
    touch(&found, sizeof found);
    touch_stack();

    virtuoso_input("path:cstr[4096]", path);
    virtuoso_input("follow:u32", &follow);
    virtuoso_output("rc:i32", &rc);
    virtuoso_output("mask:u32", &found.mask);
    virtuoso_output("mode:u16", &found.mode);
    virtuoso_output("nlink:u32", &found.nlink);
    virtuoso_output("uid:u32", &found.uid);
    virtuoso_output("gid:u32", &found.gid);
    virtuoso_output("ino:u64", &found.ino);
    virtuoso_output("size:u64", &found.size);
    virtuoso_output("blocks:u64", &found.blocks);
    virtuoso_output("block_size:u32", &found.block_size);
    virtuoso_output("dev_major:u32", &found.dev_major);
    virtuoso_output("dev_minor:u32", &found.dev_minor);
    virtuoso_output("rdev_major:u32", &found.rdev_major);
    virtuoso_output("rdev_minor:u32", &found.rdev_minor);
    virtuoso_output("attributes:u64", &found.attributes);
    virtuoso_output("mount:u64", &found.mount);
    virtuoso_output("atime:i64", &found.atime.seconds);
    virtuoso_output("atime_nsec:u32", &found.atime.nanoseconds);
    virtuoso_output("mtime:i64", &found.mtime.seconds);
    virtuoso_output("mtime_nsec:u32", &found.mtime.nanoseconds);
    virtuoso_output("ctime:i64", &found.ctime.seconds);
    virtuoso_output("ctime_nsec:u32", &found.ctime.nanoseconds);
    virtuoso_output("btime:i64", &found.btime.seconds);
    virtuoso_output("btime_nsec:u32", &found.btime.nanoseconds);
    virtuoso_begin("stat");
    int flags = AT_NO_AUTOMOUNT | (follow ? 0 : AT_SYMLINK_NOFOLLOW);
    rc = call(NR_statx, AT_FDCWD, path, flags, BASIC_BIRTH_AND_MOUNT, &found);
    virtuoso_end();
    return 0;
}
