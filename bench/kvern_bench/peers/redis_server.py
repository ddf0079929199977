"""The real Redis with an append-only file: `always` fsyncs before the answer, `everysec` once a second."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import syscalls
from ..redisclient import RedisClient
from ..service import Service, accepts_connections, free_port


class RedisServer:
    """`appendfsync` is "always" or "everysec". Snapshots are off: they would only cost the peer CPU and disk."""

    def __init__(self, directory: Path, appendfsync: str, trace: bool = False):
        self.port = free_port()
        self.trace_file = directory / "redis.strace" if trace else None
        data = directory / "redis"
        data.mkdir()
        argv = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(data), "--save", "",
                "--appendonly", "yes", "--appendfsync", appendfsync, "--maxclients", "10000"]
        self._service = Service("redis", argv, directory, trace_file=self.trace_file)

    @property
    def roots(self) -> list[int]:
        return [self._service.root]

    @property
    def pid(self) -> int:
        return self._service.pid

    def fsyncs(self) -> int:
        assert self.trace_file is not None, "only a traced Redis counts its fsyncs"
        return syscalls.count(self.trace_file)

    def client(self, database: int = 0) -> RedisClient:
        return RedisClient(self.port, database)

    def set_appendfsync(self, mode: str) -> None:
        client = self.client()
        client.command("CONFIG", "SET", "appendfsync", mode)
        client.close()

    def __enter__(self) -> "RedisServer":
        try:
            self._service.wait_until(lambda: accepts_connections(self.port))
        except BaseException:
            self._service.stop()
            raise
        return self

    def __exit__(self, *_: Any) -> None:
        self._service.stop()
