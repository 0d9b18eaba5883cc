"""A live guest that is held paused: `crates/cli/tests/running` runs this with the guest's name, its
packs and the most milliseconds that the pause may last, and ends the pause by a line.

Prints `paused` once the guest stands still, and then how it ended.
"""

import sys

import virtuoso

# What the moment of the pause leaves without an answer: a lock that somebody holds, a device.
NAMED = {12, 13, 14, 16}

target, packs, limit = sys.argv[1:]
try:
    with virtuoso.open(target, packs=packs, options=["--max-pause", limit]) as machine:
        try:
            assert machine.read_bytes("/proc/sys/kernel/hostname") == b"target\n"
        except virtuoso.Error as error:
            assert error.code in NAMED, error
        print("paused", flush=True)
        sys.stdin.readline()
except virtuoso.Error as error:
    print("failed", error.code)
else:
    print("closed")
