"""Row 4: what one job costs the disk from accept to result: fsyncs, and bytes sent to the device."""
from __future__ import annotations

from .. import procfs
from ..backlog import watch_drain
from ..body import job_body
from ..cases import Case, Values
from ..peers.article_stack import RESULTS_DATABASE
from ..service import BenchFailure
from ..settings import CONNECTIONS, PROCESSES

DRAIN_SECONDS_MAX = 180
WARM_JOBS = 20 * PROCESSES


def kvern(trace: bool):
    """Untraced, fsyncs are Kvern's own count; traced, strace counts the same window and the two are compared."""
    def run(bench) -> Values:
        with bench.kvern(processes=PROCESSES, trace=trace) as server:
            server.warm([job_body(number) for number in range(WARM_JOBS)])
            before, bytes_before = server.metrics(), procfs.device_bytes_written(server.pid)
            traced_before = server.traced_fsyncs() if trace else 0
            bench.post_load(server, CONNECTIONS, bench.settings.cost_seconds)
            after = server.wait_for(lambda metrics: metrics.open_jobs == 0, DRAIN_SECONDS_MAX)
            jobs, fsyncs = after.succeeded - before.succeeded, after.fsyncs - before.fsyncs
            written = procfs.device_bytes_written(server.pid) - bytes_before
            values = {"jobs": jobs, "device_bytes_per_job": written / jobs}
            if not trace:
                return {**values, "fsyncs_per_job": fsyncs / jobs}
            seen = server.traced_fsyncs() - traced_before
            return {**values, "fsyncs_per_job": seen / jobs, "fsyncs_by_strace": float(seen),
                    "fsyncs_by_metric": fsyncs}
    return run


def article(appendfsync: str):
    def run(bench) -> Values:
        with bench.article(appendfsync, trace=True) as stack:
            stack.start_web()
            stack.start_worker()
            stack.latencies_ms(1, job_body(0))
            results = stack.redis.client(RESULTS_DATABASE)
            results.command("FLUSHDB")
            fsyncs, written = stack.redis.fsyncs(), procfs.device_bytes_written(stack.redis.pid)
            figures = bench.post_load(stack, CONNECTIONS, bench.settings.cost_seconds)
            jobs = int(figures["accepted"])
            if jobs == 0:
                raise BenchFailure("the stack accepted nothing")
            watch_drain(lambda: results.command("DBSIZE"), jobs, DRAIN_SECONDS_MAX)
            return {"jobs": float(jobs), "fsyncs_per_job": (stack.redis.fsyncs() - fsyncs) / jobs,
                    "device_bytes_per_job": (procfs.device_bytes_written(stack.redis.pid) - written) / jobs}
    return run


ARTICLE = ("nginx", "redis-server", "celery", "wrk", "strace")
CASES = [
    Case("cost/article-everysec", "article's stack, Redis everysec", article("everysec"), ARTICLE),
    Case("cost/kvern", "Kvern, by its own metric", kvern(trace=False), ("kvern", "wrk")),
    Case("cost/article-always", "article's stack, Redis always", article("always"), ARTICLE),
    Case("cost/kvern-strace", "Kvern, counted by strace", kvern(trace=True), ("kvern", "wrk", "strace")),
]
