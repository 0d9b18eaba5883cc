/* Whether a file is procfs's own: something else may be mounted over it, and what that says is worth nothing. */
#ifndef PROCFS_H
#define PROCFS_H

#include <errno.h>
#include <stdint.h>
#include <sys/vfs.h>

/* The magic number of procfs, and with a minus rc where /proc is something else. See docs/packs.md. */
#define PROC_MAGIC 0x9fa0

/* 0 if statfs or fstatfs, which returned this, found procfs; else the negative error. */
static inline int32_t procfs_error(int result, const struct statfs *fs)
{
    if (result != 0)
        return -errno;
    return fs->f_type == PROC_MAGIC ? 0 : -PROC_MAGIC;
}

#endif
