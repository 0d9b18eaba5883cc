// A test module: /proc/marks executes Virtuoso's marks in kernel mode. Writing a NUL byte is an end mark, anything else the name of a
// program to begin.
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/uaccess.h>

MODULE_LICENSE("GPL");

static char name[65];

static ssize_t marks_write(struct file *file, const char __user *from, size_t length, loff_t *at)
{
	size_t used = min(length, sizeof(name) - 1);

	memset(name, 0, sizeof(name));
	if (copy_from_user(name, from, used))
		return -EFAULT;
	if (name[0])
		asm volatile(".byte 0x0f, 0x1f, 0x80, 0x01, 0x00, 0x54, 0x56, 0xfc, 0x85, 0xe4"
			     : : "D"(name), "S"(1l) : "memory", "cc");
	else
		asm volatile(".byte 0x0f, 0x1f, 0x80, 0x02, 0x00, 0x54, 0x56" : : "D"(0l), "S"(0l) : "memory");
	return length;
}

static const struct proc_ops operations = { .proc_write = marks_write };

static int __init marks_init(void)
{
	return proc_create("marks", 0600, NULL, &operations) ? 0 : -ENOMEM;
}
module_init(marks_init);

static void __exit marks_exit(void)
{
	remove_proc_entry("marks", NULL);
}
module_exit(marks_exit);
