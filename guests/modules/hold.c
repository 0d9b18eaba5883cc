// A test module: takes the lock of a directory and never gives it back.
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/namei.h>

MODULE_LICENSE("GPL");

static char *directory = "";
module_param(directory, charp, 0);
MODULE_PARM_DESC(directory, "whose lock to take");

static int __init hold_init(void)
{
	struct path path;
	int error = kern_path(directory, LOOKUP_FOLLOW, &path);

	if (!error)
		inode_lock(d_inode(path.dentry));
	return error;
}
module_init(hold_init);
