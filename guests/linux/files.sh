# Sourced by init-target (busybox sh): which files the guest has, and what its own tools say of them.
# What is written here lies in the root, which nobody is asked about.

# choose COUNT: writes the names of so many files of the kernel's file systems, evenly spread over all of them, and of all few that
# the guest has written itself, to /chosen. Left out are: what is this process's own, what waits for a reader, and all memory.
choose() {
    find /proc /sys \( -path /proc/1 -o -path /proc/kmsg -o -path /proc/kcore -o -path '/proc/*/task' \
        -o -path /proc/self -o -path /proc/thread-self \) -prune -o -print >/all
    awk -v total="$(wc -l </all)" -v count="$1" \
        'int(NR * count / total) != int((NR - 1) * count / total)' /all >/chosen
    find /tmp /dev/shm \( -path /tmp/many -o -path /tmp/odd \) -prune -o -print >>/chosen
    echo /tmp/many >>/chosen
    wc -l </chosen
}

# describe: for each chosen file its name, what `stat` says, and the hash of its names, its target or of its first MiB.
describe() {
    local path kind
    while read -r path <&4; do
        echo "=== FILE $path"
        stat -c 'STAT %f %u %g %h %s %b %i %t %T %Y %Z' "$path" || continue
        if [ -h "$path" ]; then
            # A kernel thread's executable is a link that leads nowhere, not even to a name.
            readlink "$path" >/content && echo "LINK $(sha256sum </content)"
        elif [ -d "$path" ]; then
            echo "NAMES $(ls -A1 "$path" | sort | sha256sum)"
        elif [ -f "$path" ] && timeout 5 head -c 1048576 "$path" >/content 2>/dev/null; then
            echo "DATA $(sha256sum </content)"
        fi
    done 4</chosen 2>/dev/null
    echo "=== FILES END"
}

# tables: processes, sockets and open files, as this guest's own tools list them. Nothing is redirected in this shell, which would have
# more open files while they are listed.
tables() {
    echo "=== TABLES"
    grep btime /proc/stat
    sed 's/^\([0-9]*\) (.*) /START \1 /' /proc/[0-9]*/stat 2>/dev/null | cut -d ' ' -f 1,2,22
    ps -o pid,ppid,user,stat,comm,args | sed 's/^/PS /'
    netstat -tuxan | sed 's/^/NET /'
    ls -l /proc/[0-9]*/fd/* /proc/[0-9]*/cwd /proc/[0-9]*/root /proc/[0-9]*/exe 2>/dev/null | sed 's/^/LINK /'
    echo "=== TABLES END"
}
