"""One question to drgn about a dump, and the same again, in one process."""

import json
import statistics
import sys
import time

import drgn
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.mm import for_each_vma
from drgn.helpers.linux.pid import find_task, for_each_task

question, dump, vmlinux, note = sys.argv[1:]
with open(note, "rb") as file:
    program = drgn.Program(vmcoreinfo=file.read())
program.set_core_dump(dump)
program.load_debug_info([vmlinux])


def leaders():
    return (task for task in for_each_task(program) if task.pid == task.tgid)


def pids():
    return [task.pid.value_() for task in leaders()]


def processes():
    return [(task.pid.value_(), task.comm.string_().decode()) for task in leaders()]


def modules():
    head = program["modules"].address_of_()
    entries = list_for_each_entry("struct module", head, "list")
    return [module.name.string_().decode() for module in entries]


def mappings():
    return [vma.vm_start.value_() for vma in for_each_vma(find_task(program, 1).mm)]


ask = {"pids": pids, "processes": processes, "modules": modules, "mappings": mappings}[question]
answer = ask()
times = []
for _ in range(20):
    begin = time.perf_counter()
    ask()
    times.append((time.perf_counter() - begin) * 1000)
print(json.dumps({"answer": answer, "again_ms": statistics.median(times)}))
