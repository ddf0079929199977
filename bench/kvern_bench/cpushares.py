"""Who used the CPU while a load ran: the server, the load generator, and everybody else on the machine."""
from __future__ import annotations

import time
from typing import Callable, Iterable

from . import procfs


class CpuWatch:
    """Started before a load and finished after it. Shares are in cores: 1.0 is one core busy all the time."""

    def __init__(self, server_roots: Callable[[], Iterable[int]]):
        self._server_roots = server_roots
        self._before = self._server_seconds()
        self._busy_before = procfs.machine_busy_seconds()
        self._own_before = time.process_time()
        self._start = time.monotonic()

    def finish(self, load_cpu_seconds: float = 0.0) -> dict[str, float]:
        """`load_cpu_seconds` is what a load generator in another process used; this process counts itself."""
        wall = time.monotonic() - self._start
        load = load_cpu_seconds + time.process_time() - self._own_before
        after = self._server_seconds()
        server = sum(seconds - self._before.get(pid, 0.0) for pid, seconds in after.items())
        busy = procfs.machine_busy_seconds() - self._busy_before
        return {
            "server_cores": server / wall,
            "load_cores": load / wall,
            # Near zero on a quiet machine. A large share says that the figures of this round are not to be trusted.
            "other_cores": max(0.0, busy - server - load) / wall,
        }

    def _server_seconds(self) -> dict[int, float]:
        seconds = {}
        for root in self._server_roots():
            for pid in procfs.descendants(root):
                try:
                    seconds[pid] = procfs.cpu_ticks_seconds(pid)
                except (FileNotFoundError, ProcessLookupError):
                    continue
        return seconds
