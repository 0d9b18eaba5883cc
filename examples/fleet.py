"""Asks many dumps the same on a Dask cluster, and counts with DuckDB what they answered.

    pip install dask distributed duckdb
    python examples/fleet.py --output ps.jsonl dumps/*.elf -- ps

Each target is a task that runs `virtuoso each` about that target alone: its lines are the task's result, so that a task
that is run again, because its worker died, gives the same lines once. A target without an answer is a line like all
others. For machines of your own give the address of your scheduler (`--scheduler`); targets and packs must then lie where
every worker finds them by the same path.
"""

import argparse
import json
import os
import signal
import subprocess
import sys

import duckdb
from dask.distributed import Client, LocalCluster, as_completed


def ask(target, virtuoso, words):
    """The lines about one target."""
    done = subprocess.run([virtuoso, "each", target, "--", *words], stdout=subprocess.PIPE, check=False)
    if not done.stdout:
        raise RuntimeError(f"{virtuoso} printed nothing about {target}: exit code {done.returncode}")
    return done.stdout


def kill_one(client):
    """Ends a worker as a machine that fails does: nobody is told."""
    pids = client.run(os.getpid)
    os.kill(next(iter(pids.values())), signal.SIGKILL)


def summary(path):
    """What came out: targets by exit code, and what most of them have."""
    columns = "{target: 'VARCHAR', \"table\": 'VARCHAR', row: 'JSON', code: 'INTEGER', rows: 'BIGINT', messages: 'VARCHAR'}"
    lines = f"read_json('{path}', format = 'newline_delimited', columns = {columns})"
    codes = duckdb.sql(f"SELECT code, count(*), count(DISTINCT target) FROM {lines} WHERE rows IS NOT NULL GROUP BY code ORDER BY code")
    names = duckdb.sql(
        f"SELECT row->>'name' AS name, count(DISTINCT target) AS targets, count(*) AS processes FROM {lines} "
        "WHERE \"table\" = 'processes' GROUP BY name ORDER BY targets DESC, processes DESC, name LIMIT 5"
    )
    failed = duckdb.sql(f"SELECT target, code, messages FROM {lines} WHERE rows IS NOT NULL AND code IS DISTINCT FROM 0 ORDER BY target")
    return {
        "codes": [{"code": code, "lines": lines, "targets": targets} for code, lines, targets in codes.fetchall()],
        "names": [{"name": name, "targets": targets, "processes": many} for name, targets, many in names.fetchall()],
        "without_answer": [{"target": target, "code": code, "messages": text} for target, code, text in failed.fetchall()],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--virtuoso", default="virtuoso", help="the command, on every worker")
    parser.add_argument("--scheduler", help="the address of a Dask scheduler; default: a cluster on this machine")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="how many, where the cluster is this machine")
    parser.add_argument("--output", required=True, help="where the lines go")
    parser.add_argument("--kill-after", type=int, help="for the test: after so many answers a worker is killed")
    parser.add_argument("targets", nargs="+", help="targets, then -- and the verb with its words")
    arguments = sys.argv[1:]
    if "--" not in arguments:
        parser.error("-- and a verb are missing behind the targets")
    at = arguments.index("--")
    given, words = parser.parse_args(arguments[:at]), arguments[at + 1 :]

    # A worker that was killed is started again by its nanny, and its tasks go to others meanwhile.
    cluster = given.scheduler or LocalCluster(n_workers=given.workers, threads_per_worker=1, dashboard_address=None)
    with Client(cluster) as client, open(given.output, "wb") as output:
        futures = client.map(ask, given.targets, virtuoso=given.virtuoso, words=words, pure=False)
        for done, future in enumerate(as_completed(futures), 1):
            output.write(future.result())
            if done == given.kill_after:
                kill_one(client)
    json.dump(summary(given.output), sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
