#!/virtuoso/busybox sh
# PID 1 of the guests that `virtuoso train` boots: loads modules, starts a little life, runs the trainers, powers off.
# Kernel command line: virtuoso.processes=N virtuoso.rounds=N

busybox=/virtuoso/busybox
$busybox mkdir -p /virtuoso/bin /proc /sys /dev /tmp
$busybox --install -s /virtuoso/bin
export PATH=/virtuoso/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
mount -t tmpfs tmpfs /tmp
exec </dev/console >/dev/console 2>&1
stty -onlcr 2>/dev/null
# The pack remembers it.
echo "virtuoso-banner: $(cat /proc/version)"

# option NAME DEFAULT: the value of virtuoso.NAME=VALUE on the kernel command line.
option() {
    local word
    for word in $(cat /proc/cmdline); do
        case $word in
        "virtuoso.$1"=*) echo "${word#*=}"; return ;;
        esac
    done
    echo "$2"
}

# module NAME: the base address of a loaded module. For arguments of trainers.
module() {
    local name size used by state base rest
    while read -r name size used by state base rest; do
        [ "$name" = "$1" ] && echo "$base" && return
    done </proc/modules
    echo "virtuoso: there is no module $1" >&2
}

# process NAME: the PID of a process by its name. For arguments of trainers.
process() {
    local directory name
    for directory in /proc/[0-9]*; do
        { read -r name <"$directory/comm"; } 2>/dev/null
        [ "$name" = "$1" ] && echo "${directory#/proc/}" && return
    done
    echo "virtuoso: there is no process $1" >&2
}

while read -r file; do
    insmod "/virtuoso/modules/$file" || echo "virtuoso: the guest could not load $file"
done </virtuoso/modules/order

# Processes with executables at several depths, in namespaces of their own, one that has ended and is still there, and gaps between their numbers.
count=$(option processes 12)
for place in usr/sbin usr/lib/systemd opt/vendor/agent/current/bin srv; do
    mkdir -p "/$place"
    ln $busybox "/$place/busybox"
done
while [ "$count" -gt 0 ]; do
    for place in usr/sbin usr/lib/systemd opt/vendor/agent/current/bin srv; do
        "/$place/busybox" sleep 100000 &
    done
    $busybox true
    count=$((count - 4))
done
unshare -m -u -i -p -f sleep 100000 &
(sleep 0 & exec sleep 100000) &

# Files for trainers that ask for some.
echo 'a short text' >/tmp/file
ln -s file /tmp/link
mkdir /tmp/directory

# The recorder learns from a few halts what an idle processor's memory looks like.
for pause in 1 2 3 4; do
    sleep 1
done

rounds=$(option rounds 1)
while [ "$rounds" -gt 0 ]; do
    while read -r line <&3; do
        eval "/virtuoso/trainers/$line" </dev/null >/dev/null || echo "virtuoso: in the guest, $line ended with $?"
    done 3</virtuoso/jobs
    rounds=$((rounds - 1))
done
poweroff -f
