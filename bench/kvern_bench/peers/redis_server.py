"""The real Redis with an append-only file: `always` fsyncs before the answer, `everysec` once a second."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

from .. import syscalls
from ..redisclient import RedisClient
from ..service import Service, accepts_connections, free_port


class RedisServer:
    """`appendfsync` is "always" or "everysec". Snapshots are off: they would only cost the peer CPU and disk."""

    def __init__(self, directory: Path, appendfsync: str, trace: bool = False):
        self.port = free_port()
        self.trace_file = directory / "redis.strace" if trace else None
        self._directory, self._appendfsync = directory, appendfsync
        self._service: Optional[Service] = None

    def _start(self) -> Service:
        data = self._directory / "redis"
        data.mkdir()
        argv = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(data), "--save", "",
                "--appendonly", "yes", "--appendfsync", self._appendfsync, "--maxclients", "10000"]
        return Service("redis", argv, self._directory, trace_file=self.trace_file)

    @property
    def roots(self) -> list[int]:
        assert self._service is not None
        return [self._service.root]

    @property
    def pid(self) -> int:
        assert self._service is not None
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
        self._service = self._start()
        try:
            self._service.wait_until(lambda: accepts_connections(self.port))
        except BaseException:
            self._service.stop()
            raise
        return self

    def __exit__(self, *_: Any) -> None:
        assert self._service is not None
        self._service.stop()
