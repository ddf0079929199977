"""Row 1: how many requests a second are accepted, and how long each waits for its 202.

"Accepted" means for Kvern that the job is on disk. Nginx keeps nothing; Redis keeps it according to `appendfsync`.
"""
from __future__ import annotations

import resource

from .. import procfs
from ..body import job_body
from ..cases import Case, Values
from ..cpushares import CpuWatch
from ..durability import kill_and_look
from ..service import BenchFailure
from ..settings import CONNECTIONS, CONNECTIONS_MANY
from ..windows import Sampler, slowest_window

WARM_JOBS = 20
# Statuses by which a server may say "later" under load; any other error breaks the promise.
LATER = {"429", "503"}
SOCKET_ERRORS = ("connect_errors", "read_errors", "write_errors", "timeouts")


def nginx_static(connections: int):
    def run(bench) -> Values:
        _enough_open_files(connections)
        with bench.nginx_static() as server:
            return bench.post_load(server, connections)
    return run


def article(appendfsync: str, connections: int = CONNECTIONS, draining: bool = False):
    def run(bench) -> Values:
        _enough_open_files(connections)
        with bench.article(appendfsync) as stack:
            stack.start_web()
            if draining:
                stack.start_worker()
                stack.latencies_ms(1, job_body(0))
            return bench.post_load(stack, connections)
    return run


def bullmq_add(appendfsync: str):
    def run(bench) -> Values:
        with bench.bullmq(appendfsync) as peer:
            watch = CpuWatch(lambda: peer.roots)
            figures = peer.add_load(bench.settings.load_seconds, CONNECTIONS, job_body(0))
            return {**figures, **watch.finish(figures["load_cpu_seconds"])}
    return run


def kvern_paused(bench) -> Values:
    """The accept path alone, then the two checks that it was honest: enough fsyncs, and nothing lost by a kill -9."""
    with bench.kvern() as server:
        server.pause()
        before = server.metrics()
        figures = bench.post_load(server, CONNECTIONS)
        after = server.metrics()
        accepts, fsyncs = after.accepted - before.accepted, after.fsyncs - before.fsyncs
        if accepts < figures["accepted"]:
            raise BenchFailure(f"wrk saw {figures['accepted']:.0f} times 202, the server counted {accepts:.0f}")
        checks = {"fsyncs": fsyncs, "accepts_per_fsync": accepts / max(1.0, fsyncs)}
        return {**figures, **checks, **kill_and_look(server, bench.settings.durable_ids, int(figures["accepted"]))}


def kvern_traced(bench) -> Values:
    """The same load under strace: whether the fsyncs that Kvern counts are fsyncs that Linux has seen."""
    with bench.kvern(trace=True) as server:
        server.pause()
        accepts, fsyncs, seen = server.metrics().accepted, server.metrics().fsyncs, server.traced_fsyncs()
        figures = bench.post_load(server, CONNECTIONS, bench.settings.cost_seconds)
        metrics, seen = server.metrics(), server.traced_fsyncs() - seen
        accepts, fsyncs = metrics.accepted - accepts, metrics.fsyncs - fsyncs
        return {**figures, "accepts_per_fsync": accepts / max(1, seen), "fsyncs_by_strace": float(seen),
                "fsyncs_by_metric": fsyncs}


def kvern_draining(bench) -> Values:
    with bench.kvern(processes=1) as server:
        server.warm([job_body(number) for number in range(WARM_JOBS)])
        before = server.metrics()
        figures = bench.post_load(server, CONNECTIONS)
        drained = server.metrics().succeeded - before.succeeded
        return {**figures, "drained_rate": drained / figures["seconds"]}


def kvern_many(bench) -> Values:
    _enough_open_files(CONNECTIONS_MANY)
    with bench.kvern() as server:
        server.pause()
        figures = bench.post_load(server, CONNECTIONS_MANY)
        resident = procfs.resident_max_bytes(server.pid)
        errors = sum(figures[name] for name in SOCKET_ERRORS)
        if figures["status_errors"]:
            # wrk counts errors but does not name them, so the same load runs once more to name them.
            statuses = bench.statuses(server, CONNECTIONS_MANY)
            errors += sum(count for status, count in statuses.items() if status >= "400" and status not in LATER)
        return {**figures, "other_errors": errors, "resident_max_bytes": resident}


def kvern_windows(bench) -> Values:
    with bench.kvern() as server:
        server.pause()
        with Sampler(lambda: server.metrics().accepted) as sampler:
            figures = bench.post_load(server, CONNECTIONS, bench.settings.windows_seconds)
        slowest, median = slowest_window(sampler.samples)
        return {**figures, "slowest_window_rate": slowest, "median_window_rate": median,
                "resident_max_bytes": procfs.resident_max_bytes(server.pid)}


def _enough_open_files(connections: int) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    # A proxy needs two descriptors per connection, and wrk shares the limit with nobody.
    if limit < 2 * connections + 512:
        raise BenchFailure(f"{connections} connections need more open files than ulimit -n {limit} allows")


NGINX, ARTICLE, BULLMQ, KVERN = ("nginx", "wrk"), ("nginx", "redis-server", "celery", "wrk"), (
    "node", "redis-server", "bullmq"), ("kvern", "wrk")
CASES = [
    Case("accept/nginx-64", "Nginx, static 202, nothing kept", nginx_static(CONNECTIONS), NGINX),
    Case("accept/article-everysec-64", "article's stack, Redis everysec", article("everysec"), ARTICLE),
    Case("accept/kvern-paused-64", "Kvern, function paused", kvern_paused, KVERN),
    Case("accept/kvern-draining-64", "Kvern, one Python instance drains", kvern_draining, KVERN),
    Case("accept/kvern-strace-64", "Kvern, function paused, under strace", kvern_traced, (*KVERN, "strace")),
    Case("accept/article-always-64", "article's stack, Redis always", article("always"), ARTICLE),
    Case("accept/article-draining-64", "article's stack, everysec, worker drains", article("everysec", draining=True),
         ARTICLE),
    Case("accept/bullmq-everysec-64", "BullMQ add, no HTTP, Redis everysec", bullmq_add("everysec"), BULLMQ),
    Case("accept/bullmq-always-64", "BullMQ add, no HTTP, Redis always", bullmq_add("always"), BULLMQ),
    Case("accept/nginx-2000", "Nginx, static 202, 2,000 connections", nginx_static(CONNECTIONS_MANY), NGINX),
    Case("accept/kvern-paused-2000", "Kvern, function paused, 2,000 connections", kvern_many, KVERN),
    Case("accept/article-everysec-2000", "article's stack, everysec, 2,000 connections",
         article("everysec", CONNECTIONS_MANY), ARTICLE),
    Case("accept/kvern-windows", "Kvern, function paused, a long run", kvern_windows, KVERN, is_long=True),
]
