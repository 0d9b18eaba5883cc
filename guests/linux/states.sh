# Sourced by both init scripts: what `state=NAME` on the kernel command line adds to a target, and `state NAME` to either guest later.
# Everything here is over before the truth is taken, or stays as it is.

state_plain() { :; }

state_threads() { /lib/threads 300 & }

state_zombies() {
    local left=40
    while [ "$left" -gt 0 ]; do
        /lib/undead &
        left=$((left - 1))
    done
}

# Another dozen PID namespaces, with three processes each.
state_containers() {
    local left=12
    while [ "$left" -gt 0 ]; do
        /lib/cell "cell$left" /cells/blue/tini /cells/blue/app /cells/blue/sidecar &
        left=$((left - 1))
    done
}

# All but a few MiB of memory is taken, so that reclaim has run.
state_pressure() {
    local free
    while read -r name free unit; do
        [ "$name" = MemFree: ] && break
    done </proc/meminfo
    mkdir /fill && mount -t tmpfs -o size=100% tmpfs /fill
    dd if=/dev/zero of=/fill/most bs=1M count=$((free / 1024 - 14)) 2>/dev/null
    cat /bin/busybox /lib/* >/dev/null
}

# Processes come and go all the time.
state_fork() { /lib/forker & }

state_load() { /lib/churn & }

# Modules come and go: those that nobody uses, twice, in the other order the second time.
state_modules() {
    local module
    rmmod nls_utf8 tun dummy
    for module in dummy tun nls_utf8; do
        insmod "/modules/$module.ko"
    done
    rmmod loop
}

# Programs on a tmpfs, under a bind mount and on an overlay.
state_mounts() {
    mkdir -p /mnt/tmp /mnt/bind /mnt/over
    mount -t tmpfs tmpfs /mnt/tmp
    mkdir /mnt/tmp/lower /mnt/tmp/upper /mnt/tmp/work /mnt/tmp/deep
    cp /lib/idler /mnt/tmp/lower/underneath
    cp /lib/idler /mnt/tmp/deep/hidden
    mount -t overlay -o lowerdir=/mnt/tmp/lower,upperdir=/mnt/tmp/upper,workdir=/mnt/tmp/work overlay /mnt/over
    cp /lib/idler /mnt/over/above
    mount --bind /mnt/tmp/deep /mnt/bind
    /mnt/over/underneath &
    /mnt/over/above &
    /mnt/bind/hidden &
    /mnt/tmp/deep/hidden &
}

# Containers as their runtimes make them: namespaces of their own, and a root of its own that is an overlay over an image which they
# share. /container is in each root but this one: a file of the image, one that was changed, one that was added, one that was removed
# and a directory that was made anew.
state_overlays() {
    local name image=/images/shared
    mkdir -p /images && mount -t tmpfs tmpfs /images
    mkdir -p $image/bin $image/proc $image/etc $image/container/replaced
    cp /bin/busybox $image/bin && ln -s busybox $image/bin/sleep
    ln -s ../etc/name $image/container/link
    for name in kept changed removed replaced/below; do
        echo "$name, of the image" >$image/container/$name
    done
    for name in web db; do
        mkdir -p /images/$name/upper /images/$name/work /images/$name/root
        mount -t overlay -o lowerdir=$image,upperdir=/images/$name/upper,workdir=/images/$name/work overlay /images/$name/root
        (
            cd /images/$name/root
            echo "$name" >etc/name
            echo "changed by $name" >>container/changed
            dd if=/bin/busybox of=container/added bs=1024 count=300 2>/dev/null
            rm -r container/removed container/replaced
            mkdir container/replaced
            # A first root file system cannot be replaced, but covered.
            exec unshare -m -p -n -i -u -f sh -c "mount -t proc proc proc && hostname $name && mount --move . / && \
                exec chroot . /bin/sleep 100000"
        ) &
    done
    sleep 1
}

# What the trainers of guests/limits look at: a file, a disk, some names; and kernel threads that serve the disk.
state_limits() {
    mkdir -p /limits && mount -t tmpfs tmpfs /limits
    echo "a note of the $GUEST guest" >/limits/note
    touch "/limits/$GUEST-one" "/limits/$GUEST-two"
    { echo "a disk of the $GUEST guest"; dd if=/dev/zero bs=4096 count=8 2>/dev/null; } >/tmp/disk
    losetup /dev/loop0 /tmp/disk
    cat /kits/marks.ko >/dev/null 2>&1 && insmod /kits/marks.ko
}

# The kernel patches its own code: trace points, a probe, the start of every traced function, and a static key.
state_patched() {
    mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
    cd /sys/kernel/tracing
    echo 'p:limits filldir64' >kprobe_events && echo 1 >events/kprobes/limits/enable
    echo 1 >events/raw_syscalls/enable
    echo 1 >events/sched/enable
    echo function >current_tracer
    echo 1 >/proc/sys/kernel/sched_schedstats
    cd /
}

state_unpatched() {
    cd /sys/kernel/tracing
    echo nop >current_tracer
    echo 0 >events/sched/enable
    echo 0 >events/raw_syscalls/enable
    echo 0 >events/kprobes/limits/enable && echo >kprobe_events
    echo 0 >/proc/sys/kernel/sched_schedstats
    cd /
}

# File systems that are modules: one on a disk, and one over it that training's guests do not load.
disk_and_overlay() {
    mkdir -p /tmp/disk /tmp/over /dev/shm/upper /dev/shm/work
    dd if=/dev/zero of=/disk bs=1024 count=4096 2>/dev/null
    losetup /dev/loop0 /disk && mke2fs /dev/loop0 >/dev/null 2>&1 && mount -t ext4 /dev/loop0 /tmp/disk
    mkdir /tmp/disk/directory
    echo 'on the disk' >/tmp/disk/directory/file
    ln -s directory/file /tmp/disk/link
    dd if=/bin/busybox of=/tmp/disk/long bs=1024 count=700 2>/dev/null
    mount -t overlay -o lowerdir=/tmp/disk,upperdir=/dev/shm/upper,workdir=/dev/shm/work overlay /tmp/over
    echo 'above the disk' >/tmp/over/above
    echo 'changed above the disk' >>/tmp/over/directory/file
    # How many blocks a file has is decided when they are written, which may be between two looks at it.
    sync
}

# Files of all kinds: a long directory, a long path, a long file with a hole in it, links, names that are no text, and a file that is held
# open though it was deleted.
state_files() {
    local at=0 path=/tmp/deep
    mkdir -p /dev/shm /tmp/many && mount -t tmpfs tmpfs /dev/shm
    while [ "$at" -lt 9000 ]; do
        : >"/tmp/many/entry$at"
        at=$((at + 1))
    done
    mkdir "$path"
    while [ "${#path}" -lt 2000 ]; do
        path=$path/a-directory-with-a-rather-long-name-so-that-paths-get-long-with-few-of-them-and-their-inodes-stay-few-too
        mkdir "$path"
    done
    echo 'at the end of a long path' >"$path/end"
    dd if=/bin/busybox of=/dev/shm/long bs=1024 count=1500 2>/dev/null
    dd if=/bin/busybox of=/dev/shm/long bs=1024 seek=2000 count=3 conv=notrunc 2>/dev/null
    echo 'a small file' >/tmp/small
    chmod 640 /tmp/small && chown 12:34 /tmp/small && touch -d '2001-02-03 04:05:06' /tmp/small
    ln /tmp/small /tmp/hard
    ln -s ../dev/shm/long /tmp/link
    ln -s nowhere /tmp/dangling
    mkfifo /tmp/pipe
    disk_and_overlay
    mkdir /tmp/odd && : >"$(printf '/tmp/odd/no-text-\377\001')"
    echo 'deleted and still open' >/tmp/held
    /bin/busybox sleep 100000 3</tmp/held &
    held=$!
    sleep 0.2
    rm /tmp/held
    # Sockets, and files that are called odd things: here and in a network namespace of its own.
    /lib/holder root &
    unshare -n /lib/holder cell &
    sleep 1
    echo "=== HELD $held"
}

# Files made to do harm: names that a terminal obeys, links out of the tree and to themselves, sizes up to 2^63, what never ends, more
# directories in each other than anybody makes; and names that the tests change in the dump.
state_hostile() {
    local at=0
    mkdir /tmp/evil && cd /tmp/evil
    : >"$(printf 'two\nlines')"
    : >"$(printf '\033[2J\033]0;title\007')"
    : >"$(printf '\377\376')"
    : >-rf
    ln -s /etc/passwd out
    ln -s ../../../../../../../../etc up
    ln -s . round
    ln -s loop loop
    truncate -s 9223372036854775807 huge
    mknod endless c 1 5
    mkfifo pipe
    mkdir slash nul dots
    : >slash/name-with-a-slash-in-it
    : >nul/name-with-a-nul-in-it
    : >dots/name-of-two-dots
    mkdir deep && cd deep
    while [ "$at" -lt 140 ]; do
        mkdir in && cd in
        at=$((at + 1))
    done
    cd /
}
