"""Row 2: no-op jobs drained a second, from a backlog that was queued before. Every result is fetched and compared."""
from __future__ import annotations

import json
import time
from typing import Callable

from ..backlog import rate_of, watch_drain
from ..body import digest, expected_digest, job_body
from ..cases import Case, Values
from ..cpushares import CpuWatch
from ..durability import job_id
from ..exchange import exchange, get_request
from ..peers.article_stack import RESULTS_DATABASE
from ..peers.kvern import NODE_HANDLER, PYTHON_HANDLER, KvernServer
from ..service import BenchFailure
from ..settings import PROCESSES

DRAIN_SECONDS_MAX = 120
START_SECONDS_MAX = 60
WARM_JOBS_PER_PROCESS = 20


def kvern(handler: str, processes: int):
    def run(bench) -> Values:
        total = bench.settings.drain_kvern_jobs
        with bench.kvern(handler, processes) as server:
            server.warm([job_body(number) for number in range(WARM_JOBS_PER_PROCESS * processes)])
            server.pause()
            ids = _submit_numbered(server, total)
            before = server.metrics()
            watch = CpuWatch(lambda: server.roots)
            start = time.monotonic()
            server.resume()
            samples = watch_drain(lambda: total - server.metrics().open_jobs, total, DRAIN_SECONDS_MAX)
            # From the moment of the resume, with no allowance: the instances are warm.
            figures = {"rate": total / (samples[-1][0] - start), **watch.finish()}
            wrong = _count_wrong_results(server, ids)
            succeeded = server.metrics().succeeded - before.succeeded
            return {**figures, "jobs": float(total), "not_succeeded": total - succeeded, "wrong_results": float(wrong)}
    return run


def _submit_numbered(server: KvernServer, total: int) -> list:
    """Jobs with the numbers 0 to total-1; returns their ids in that order."""
    ids: list = [None] * total

    def on_answer(index: int, status: int, body: bytes) -> None:
        if status != 202:
            raise BenchFailure(f"a submit was answered {status}: {body[:200]!r}")
        ids[index] = job_id(body)

    requests = (server.submit_request(job_body(number)) for number in range(total))
    outcome = exchange(server.port, requests, on_answer)
    if outcome.answered != total:
        raise BenchFailure(f"{outcome.answered} of {total} submits were answered, {outcome.broken} connections broke")
    return ids


def _count_wrong_results(server: KvernServer, ids: list) -> int:
    """Fetches the result of every job and compares its hash with that of the number that was sent."""
    right = []

    def on_answer(index: int, status: int, body: bytes) -> None:
        if status == 200 and digest(body) == expected_digest(index):
            right.append(index)

    exchange(server.port, (get_request(server.port, f"/v1/jobs/{name}/result") for name in ids), on_answer)
    return len(ids) - len(right)


def celery(appendfsync: str):
    def run(bench) -> Values:
        total = bench.settings.drain_celery_jobs
        with bench.article("everysec") as stack:
            stack.queue(b"\n".join(job_body(number) for number in range(total)))
            # Filled in the faster mode, drained in the one that is measured.
            stack.redis.set_appendfsync(appendfsync)
            stack.start_worker()
            results = stack.redis.client(RESULTS_DATABASE)
            watch = _wait_for_first(lambda: results.command("DBSIZE"), stack)
            samples = watch_drain(lambda: results.command("DBSIZE"), total, DRAIN_SECONDS_MAX)
            return {"rate": rate_of(samples), "jobs": float(total), **watch.finish(),
                    "wrong_results": float(total - _right_celery_results(results))}
    return run


def _right_celery_results(results) -> int:
    keys = [key.decode() for key in results.command("KEYS", "celery-task-meta-*")]
    values = [json.loads(value) for value in results.command("MGET", *keys)]
    return len({value["result"] for value in values if value["status"] == "SUCCESS"})


def bullmq(appendfsync: str, processes: int):
    def run(bench) -> Values:
        total = bench.settings.drain_bullmq_jobs
        with bench.bullmq("everysec") as peer:
            peer.queue(b"\n".join(job_body(number) for number in range(total)))
            peer.redis.set_appendfsync(appendfsync)
            client = peer.redis.client()
            peer.start_workers(processes)
            watch = _wait_for_first(lambda: client.command("ZCARD", "bull:bench:completed"), peer)
            samples = watch_drain(lambda: client.command("ZCARD", "bull:bench:completed"), total, DRAIN_SECONDS_MAX)
            return {"rate": rate_of(samples), "jobs": float(total), **watch.finish(),
                    "wrong_results": float(_count_wrong_bullmq_results(client, total))}
    return run


def _count_wrong_bullmq_results(client, total: int) -> int:
    """Job ids are 1, 2, 3, … in the order in which the numbers 0, 1, 2, … were queued."""
    values = client.pipeline([("HGET", f"bull:bench:{number + 1}", "returnvalue") for number in range(total)])
    return sum(1 for number, value in enumerate(values) if value is None or json.loads(value) != number)


def _wait_for_first(done: Callable[[], float], peer) -> CpuWatch:
    """A worker's start is not held against it: the drain is timed from its first result on."""
    watch_drain(done, 1, START_SECONDS_MAX)
    return CpuWatch(lambda: peer.roots)


CELERY, BULLMQ, KVERN = ("redis-server", "celery"), ("node", "redis-server", "bullmq"), ("kvern",)
CASES = [
    Case("drain/celery-everysec", f"Celery prefork, {PROCESSES} processes, Redis everysec", celery("everysec"), CELERY),
    Case("drain/kvern-python", f"Kvern, Python handler, {PROCESSES} processes", kvern(PYTHON_HANDLER, PROCESSES),
         KVERN),
    Case("drain/celery-always", f"Celery prefork, {PROCESSES} processes, Redis always", celery("always"), CELERY),
    Case("drain/bullmq-everysec", "BullMQ, 1 process, concurrency 64, Redis everysec", bullmq("everysec", 1), BULLMQ),
    Case("drain/kvern-node", f"Kvern, Node handler, {PROCESSES} processes", kvern(NODE_HANDLER, PROCESSES),
         (*KVERN, "node")),
    Case("drain/bullmq-always", "BullMQ, 1 process, concurrency 64, Redis always", bullmq("always", 1), BULLMQ),
    Case("drain/kvern-node-1", "Kvern, Node handler, 1 process", kvern(NODE_HANDLER, 1), (*KVERN, "node")),
    Case("drain/bullmq-everysec-2", "BullMQ, 2 processes, concurrency 64 each, Redis everysec", bullmq("everysec", 2),
         BULLMQ),
]
