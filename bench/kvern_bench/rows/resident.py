"""Row 5: what a server costs while nothing happens, what a long queue costs, and how fast it is there."""
from __future__ import annotations

import shutil
import time

from .. import procfs
from ..body import job_body
from ..cases import Case, Values
from ..disk import median
from ..service import BenchFailure
from ..settings import CONNECTIONS

# After the start, and after a load: what is only in flight should not be counted as resident for good.
SETTLE_SECONDS = 2.0
BACKLOG_SECONDS_MAX = 180


def kvern_start_up(bench) -> Values:
    """Half of the bar's meaning is a restart, so both are measured: on an empty directory and on an existing one."""
    fresh, again = [], []
    server = bench.kvern()
    for _ in range(bench.settings.start_ups):
        shutil.rmtree(server.data, ignore_errors=True)
        for times in (fresh, again):
            with server:
                times.append(server.ready_seconds * 1000)
    return {"fresh_ms": median(fresh), "again_ms": median(again), "p50_ms": max(median(fresh), median(again))}


def kvern_idle(bench) -> Values:
    with bench.kvern() as server:
        time.sleep(SETTLE_SECONDS)
        resident = procfs.resident_bytes(server.pid)
        cpu, start = procfs.cpu_exact_seconds(server.pid), time.monotonic()
        time.sleep(bench.settings.idle_seconds)
        used, wall = procfs.cpu_exact_seconds(server.pid) - cpu, time.monotonic() - start
        return {"resident_bytes": float(resident), "cpu_ms_per_minute": used * 1000 * 60 / wall,
                "seconds": wall}


def kvern_backlog(bench) -> Values:
    wanted = bench.settings.backlog_jobs
    with bench.kvern() as server:
        server.pause()
        deadline = time.monotonic() + BACKLOG_SECONDS_MAX
        while server.metrics().open_jobs < wanted:
            if time.monotonic() > deadline:
                raise BenchFailure(f"only {server.metrics().open_jobs:.0f} of {wanted} jobs were queued in time")
            bench.post_load(server, CONNECTIONS, seconds=2)
        time.sleep(SETTLE_SECONDS)
        return {"resident_bytes": float(procfs.resident_bytes(server.pid)), "jobs": server.metrics().open_jobs,
                "resident_max_bytes": float(procfs.resident_max_bytes(server.pid))}


def article_idle(bench) -> Values:
    """The whole stack, because all of it must run for a job to be accepted and done."""
    with bench.article("everysec") as stack:
        stack.start_web()
        stack.start_worker()
        stack.latencies_ms(1, job_body(0))
        time.sleep(SETTLE_SECONDS)
        processes = [pid for root in stack.roots for pid in procfs.descendants(root)]
        worker = sum(procfs.resident_bytes(pid) for pid in stack.worker_processes())
        return {"resident_bytes": float(sum(map(procfs.resident_bytes, processes))), "worker_bytes": float(worker),
                "processes": float(len(processes))}


CASES = [
    Case("resident/kvern-start", "Kvern, start to /readyz", kvern_start_up, ("kvern",)),
    Case("resident/kvern-idle", "Kvern, idle, no instance", kvern_idle, ("kvern",), is_long=True),
    Case("resident/kvern-backlog", "Kvern, after the backlog was queued", kvern_backlog, ("kvern", "wrk"), is_long=True),
    Case("resident/article-idle", "article's stack, idle, all processes", article_idle,
         ("nginx", "redis-server", "celery"), is_long=True),
]
