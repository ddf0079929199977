"""Row 3: from submit to result on an idle server, one job at a time."""
from __future__ import annotations

import http.client
import json
import time

from ..body import job_body
from ..cases import Case, Values
from ..disk import percentile
from ..peers.kvern_metrics import FUNCTION
from ..service import BenchFailure

WARM_JOBS = 20


def kvern(bench) -> Values:
    """POST, then GET with `?wait=`, on one kept connection: what a program that wants the result would do."""
    samples = bench.settings.latency_samples
    with bench.kvern(processes=1) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        for _ in range(WARM_JOBS):
            _round_trip(connection)
        before = server.metrics()
        times = [_round_trip(connection) for _ in range(samples)]
        fsyncs = server.metrics().fsyncs - before.fsyncs
        connection.close()
    return {**_percentiles(times), "fsyncs_per_job": fsyncs / samples}


def _round_trip(connection: http.client.HTTPConnection) -> float:
    """Milliseconds from the first byte sent to a job that has succeeded."""
    start = time.perf_counter()
    connection.request("POST", f"/v1/functions/{FUNCTION}/jobs", job_body(0), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    job = json.loads(answer.read())
    if answer.status != 202:
        raise BenchFailure(f"a submit was answered {answer.status}")
    connection.request("GET", f"/v1/jobs/{job['id']}?wait=5s")
    state = json.loads(connection.getresponse().read())["state"]
    elapsed = (time.perf_counter() - start) * 1000
    if state != "succeeded":
        raise BenchFailure(f"a job was {state} after 5 s")
    return elapsed


def celery(appendfsync: str):
    def run(bench) -> Values:
        with bench.article(appendfsync) as stack:
            stack.start_worker()
            return _percentiles(stack.latencies_ms(bench.settings.latency_samples, job_body(0)))
    return run


def _percentiles(times: list) -> Values:
    return {"p50_ms": percentile(times, 0.50), "p99_ms": percentile(times, 0.99), "max_ms": max(times),
            "samples": float(len(times))}


CELERY = ("redis-server", "celery")
CASES = [
    Case("latency/celery-everysec", "Celery delay().get(), Redis everysec", celery("everysec"), CELERY),
    Case("latency/kvern", "Kvern, POST then ?wait=, warm handler", kvern, ("kvern",)),
    Case("latency/celery-always", "Celery delay().get(), Redis always", celery("always"), CELERY),
]
