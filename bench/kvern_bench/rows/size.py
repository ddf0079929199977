"""Row 6: what a long queue costs: the same accepts, drains, memory and restart with none, a million and ten million jobs."""
from __future__ import annotations

import time

from .. import procfs, wrk
from ..cases import Case, Values
from ..disk import median
from ..filled import give_filled
from ..service import BenchFailure
from ..settings import CONNECTIONS, PROCESSES

# After a start, before memory is read.
SETTLE_SECONDS = 1.0
# After the resume, until the instances have come up.
WARM_SECONDS = 2.0
RESTARTS = 3
STEP_SECONDS = 0.02
DRAINED_JOBS_MIN = 1_000


def kvern_with(queued: str):
    def run(bench) -> Values:
        jobs = getattr(bench.settings, queued) if queued else 0
        server = bench.kvern(processes=PROCESSES)
        if jobs:
            give_filled(bench, server, jobs)
        ready = []
        with server:
            for _ in range(RESTARTS):
                # Not stopped: what a server leaves behind that had no time to tidy up.
                server.kill_9()
                server.start()
                ready.append(server.ready_seconds * 1000)
            time.sleep(SETTLE_SECONDS)
            started = procfs.resident_bytes(server.pid)
            server.pause()
            figures = bench.post_load(server, CONNECTIONS)
            keyed = wrk.post_keyed_load(server.url, bench.body_file, bench.settings.load_seconds, CONNECTIONS,
                                        bench.settings.wrk_threads)
            resident = procfs.resident_bytes(server.pid)
            return {**figures, "keyed_rate": keyed["rate"], "keyed_p99_ms": keyed["p99_ms"],
                    "backlog_drained_rate": _drained_rate(server, bench.settings.load_seconds),
                    "started_bytes": float(started), "resident_bytes": float(resident), "resident_max_bytes": float(procfs.resident_max_bytes(server.pid)),
                    "ready_ms": median(ready), "jobs": float(jobs)}
    return run


def _drained_rate(server, seconds: float) -> float:
    """No-op jobs a second, until the time is over or the queue is empty."""
    server.resume()
    time.sleep(WARM_SECONDS)
    before, start = server.metrics().succeeded, time.monotonic()
    while True:
        time.sleep(STEP_SECONDS)
        now, took = server.metrics(), time.monotonic() - start
        if not now.open_jobs or took >= seconds:
            break
    if now.succeeded - before < DRAINED_JOBS_MIN:
        raise BenchFailure(f"the queue ran empty after {now.succeeded - before:.0f} jobs, too few to time")
    return (now.succeeded - before) / took


KVERN = ("kvern", "wrk")
CASES = [
    Case("size/kvern-0", "Kvern, empty queue", kvern_with(""), KVERN, is_long=True, is_extra=True),
    Case("size/kvern-1m", "Kvern, one million jobs queued", kvern_with("queued_many_jobs"), KVERN, is_long=True, is_extra=True),
    Case("size/kvern-10m", "Kvern, ten million jobs queued", kvern_with("queued_most_jobs"), KVERN, is_long=True, is_extra=True),
]
