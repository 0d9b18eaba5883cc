#!/usr/bin/env python3
"""Stands in for virsh in tests: passes QMP commands, and the files that go with them, to a real QEMU's monitor, and tells
of the events of another one.

Understands `--version`, `version --daemon`, `dominfo --domain NAME`, `qemu-monitor-event ... --domain NAME` and `qemu-monitor-command
[--pass-fds N] --domain NAME --cmd JSON`, for the one domain "target" with the number 1, whose monitors' sockets are in
VIRSH_TEST_SOCKET and, for events, VIRSH_TEST_EVENTS.
"""
import json
import os
import re
import socket
import sys

words = sys.argv[1:]
options = {words[at]: words[at + 1] for at in range(len(words) - 1) if words[at].startswith("--")}
if words[0] in ("--version", "version"):
    print("11.3.0" if words[0] == "--version" else "Running against daemon: 11.3.0")
    sys.exit()
if options.get("--domain") not in ("target", "1"):
    sys.exit("error: failed to get domain")
if words[0] == "dominfo":
    print("Id:             1\nName:           target\nState:          running")
    sys.exit()
listens = words[0] == "qemu-monitor-event"
monitor = socket.socket(socket.AF_UNIX)
monitor.connect(os.environ["VIRSH_TEST_EVENTS" if listens else "VIRSH_TEST_SOCKET"])
lines = monitor.makefile("r")


def ask(request, files=()):
    """The answer to one command; events are skipped."""
    socket.send_fds(monitor, [json.dumps(request).encode() + b"\n"], files)
    while True:
        answer = json.loads(lines.readline())
        if "return" in answer or "error" in answer:
            return answer


lines.readline()
ask({"execute": "qmp_capabilities"})
if listens:
    for event in map(json.loads, lines):
        if re.search(options["--event"], event["event"]):
            at = "{seconds}.{microseconds:06}".format(**event["timestamp"])
            data = json.dumps(event.get("data")) if "data" in event else "<null>"
            print(f"event {event['event']} at {at} for domain 'target': {data}", flush=True)
    sys.exit("error: Disconnected")
request = json.loads(options["--cmd"])
files = [int(options["--pass-fds"])] if "--pass-fds" in options else []
print(json.dumps(ask(request, files)))
