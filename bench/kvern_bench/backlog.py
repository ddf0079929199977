"""Drains: how fast a backlog of jobs is worked off, seen from outside by a counter."""
from __future__ import annotations

import time
from typing import Callable

from .service import BenchFailure

STEP_SECONDS = 0.02


def watch_drain(done: Callable[[], float], total: int, seconds_max: float) -> list:
    """Reads `done` until it reaches `total`; returns (time, count) pairs, the last one with the whole backlog."""
    samples, deadline = [], time.monotonic() + seconds_max
    while True:
        count = done()
        samples.append((time.monotonic(), count))
        if count >= total:
            return samples
        if samples[-1][0] > deadline:
            raise BenchFailure(f"only {count:.0f} of {total} jobs were done within {seconds_max:g} s")
        time.sleep(STEP_SECONDS)


def rate_of(samples: list) -> float:
    """Jobs a second between the first sample and the last."""
    seconds = samples[-1][0] - samples[0][0]
    if seconds <= 0:
        raise BenchFailure("the backlog was gone before it could be timed; it needs more jobs")
    return (samples[-1][1] - samples[0][1]) / seconds
