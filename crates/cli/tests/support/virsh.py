#!/usr/bin/env python3
"""Stands in for virsh in tests: passes QMP commands, and the files that go with them, to a real QEMU's monitor.

Understands `domid --domain NAME` and `qemu-monitor-command [--pass-fds N] --domain NAME --cmd JSON`, for the one domain
"target", whose socket is in VIRSH_TEST_SOCKET.
"""
import json
import os
import socket
import sys

words = sys.argv[1:]
options = dict(zip(words[1::2], words[2::2]))
if options.get("--domain") != "target":
    sys.exit("error: failed to get domain")
if words[0] == "domid":
    print(1)
    sys.exit()
monitor = socket.socket(socket.AF_UNIX)
monitor.connect(os.environ["VIRSH_TEST_SOCKET"])
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
request = json.loads(options["--cmd"])
files = [int(options["--pass-fds"])] if "--pass-fds" in options else []
print(json.dumps(ask(request, files)))
