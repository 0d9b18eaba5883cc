# Sourced by both init scripts (busybox sh). Mounts the kernel's file systems, loads the modules in /modules/order
# (dependencies first, written by the testkit) and reads options from the kernel command line.

export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
mount -t tmpfs tmpfs /tmp
exec </dev/ttyS0 >/dev/ttyS0 2>&1
stty -echo -onlcr 2>/dev/null
hostname "$GUEST"

# option NAME DEFAULT: the value of NAME=VALUE on the kernel command line.
option() {
    local word
    for word in $(cat /proc/cmdline); do
        case $word in
        "$1"=*) echo "${word#*=}"; return ;;
        esac
    done
    echo "$2"
}

while read -r module; do
    insmod "/modules/$module" || echo "init: could not load $module"
done </modules/order
