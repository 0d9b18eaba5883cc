# Sourced by init-target: what `state=NAME` on the kernel command line adds to a target. Everything here is over before the truth is
# taken, or stays as it is.

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
