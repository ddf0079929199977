"""BullMQ on the real Redis, driven by its own Node client. No HTTP stands in front of it."""
from __future__ import annotations

import json
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..service import BenchFailure, Service
from ..settings import BULLMQ_CONCURRENCY
from .redis_server import RedisServer

HELPER_SECONDS_MAX = 120


class BullMq:
    """`node` is the directory that holds node_modules and a copy of workloads/bullmq."""

    def __init__(self, directory: Path, node: Path, appendfsync: str):
        self._directory, self._node = directory, node
        self.redis = RedisServer(directory, appendfsync)
        self._stack = ExitStack()
        self._workers: list[Service] = []

    @property
    def roots(self) -> list[int]:
        return self.redis.roots + [worker.root for worker in self._workers]

    def add_load(self, seconds: int, in_flight: int, body: bytes) -> dict[str, float]:
        return json.loads(self._helper("add.mjs", [str(seconds), str(in_flight)], body))

    def queue(self, bodies: bytes) -> None:
        self._helper("fill.mjs", [], bodies)

    def start_workers(self, processes: int) -> None:
        for number in range(processes):
            argv = ["node", str(self._node / "worker.mjs"), str(self.redis.port), str(BULLMQ_CONCURRENCY)]
            worker = Service(f"bullmq-{number}", argv, self._directory)
            self._workers.append(self._stack.enter_context(worker))

    def _helper(self, script: str, arguments: list[str], stdin: bytes) -> bytes:
        done = subprocess.run(["node", str(self._node / script), str(self.redis.port), *arguments], input=stdin,
                              capture_output=True, cwd=self._directory, timeout=HELPER_SECONDS_MAX)
        if done.returncode != 0:
            raise BenchFailure(f"{script} failed: {done.stderr.decode(errors='replace').strip()[-300:]}")
        return done.stdout

    def __enter__(self) -> "BullMq":
        self._stack.enter_context(self.redis)
        return self

    def __exit__(self, *_: Any) -> None:
        self._stack.close()
