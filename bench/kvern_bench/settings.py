"""How long and how much: one set of numbers for the full run, a smaller one to see that everything works."""
from __future__ import annotations

from dataclasses import dataclass

BODY_BYTES = 256
CONNECTIONS = 64
CONNECTIONS_MANY = 2_000
# The article's worker and Kvern's Python handler run with as many processes, so that only the machinery differs.
PROCESSES = 2
BULLMQ_CONCURRENCY = 64


@dataclass(frozen=True)
class Settings:
    """Every duration and count of a run. `*_seconds` bound a load, `*_jobs` bound a backlog."""

    form: str
    rounds: int
    wrk_threads: int
    load_seconds: int
    windows_seconds: int
    cost_seconds: int
    idle_seconds: int
    latency_samples: int
    drain_kvern_jobs: int
    drain_celery_jobs: int
    drain_bullmq_jobs: int
    backlog_jobs: int
    queued_many_jobs: int
    queued_most_jobs: int
    start_ups: int
    durable_ids: int


FULL = Settings(
    form="full",
    rounds=3,
    wrk_threads=2,
    load_seconds=10,
    windows_seconds=60,
    cost_seconds=4,
    idle_seconds=60,
    latency_samples=1_000,
    drain_kvern_jobs=100_000,
    drain_celery_jobs=5_000,
    drain_bullmq_jobs=50_000,
    backlog_jobs=1_000_000,
    queued_many_jobs=1_000_000,
    queued_most_jobs=10_000_000,
    start_ups=11,
    durable_ids=20_000,
)

QUICK = Settings(
    form="quick",
    rounds=1,
    wrk_threads=2,
    load_seconds=2,
    windows_seconds=6,
    cost_seconds=2,
    idle_seconds=5,
    latency_samples=100,
    drain_kvern_jobs=4_000,
    drain_celery_jobs=500,
    drain_bullmq_jobs=5_000,
    backlog_jobs=20_000,
    queued_many_jobs=100_000,
    queued_most_jobs=200_000,
    start_ups=3,
    durable_ids=4_000,
)
