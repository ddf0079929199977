"""One-second windows of a counter that is read while a load runs."""
from __future__ import annotations

import statistics
import threading
import time
from typing import Any, Callable

STEP_SECONDS = 0.1
WINDOW_SECONDS = 1.0
# The load needs a moment to connect, and the counter stands still once the load has ended.
EDGE_SECONDS = 0.5

Sample = tuple  # of (monotonic seconds, counter)


class Sampler:
    """Reads a counter ten times a second in a thread of its own, from entering to leaving."""

    def __init__(self, read: Callable[[], float]):
        self.samples: list[Sample] = []
        self._read = read
        self._stop = threading.Event()
        self._failure: list[Exception] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            while not self._stop.wait(STEP_SECONDS):
                value = self._read()
                self.samples.append((time.monotonic(), value))
        except Exception as failure:  # noqa: BLE001 - raised again in the thread that waits
            self._failure.append(failure)

    def __enter__(self) -> "Sampler":
        self._thread.start()
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        self._stop.set()
        self._thread.join()
        if self._failure and kind is None:
            raise self._failure[0]


def window_rates(samples: list[Sample]) -> list[float]:
    """The rate of every one-second window that begins at a sample: they overlap, so that none can hide."""
    moving = [index for index in range(1, len(samples)) if samples[index][1] > samples[index - 1][1]]
    if not moving:
        return []
    first, last = samples[moving[0] - 1][0] + EDGE_SECONDS, samples[moving[-1]][0] - EDGE_SECONDS
    inside = [sample for sample in samples if first <= sample[0] <= last]
    rates, end = [], 0
    for start, (time_start, count_start) in enumerate(inside):
        end = max(end, start)
        while end < len(inside) and inside[end][0] < time_start + WINDOW_SECONDS:
            end += 1
        if end == len(inside):
            break
        rates.append((inside[end][1] - count_start) / (inside[end][0] - time_start))
    return rates


def slowest_window(samples: list[Sample]) -> tuple:
    """The slowest window and the median of all."""
    rates = window_rates(samples)
    if not rates:
        return None, None
    return min(rates), statistics.median(rates)
