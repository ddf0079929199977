"""A few lines of the Redis protocol, so that the benchmark itself needs nothing but Python."""
from __future__ import annotations

import socket
from typing import Any, Sequence


class RedisClient:
    def __init__(self, port: int, database: int = 0):
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._file = self._socket.makefile("rb")
        if database:
            self.command("SELECT", str(database))

    def command(self, *words: str) -> Any:
        return self.pipeline([words])[0]

    def pipeline(self, commands: Sequence[Sequence[str]]) -> list[Any]:
        self._socket.sendall(b"".join(_encode(words) for words in commands))
        return [self._read() for _ in commands]

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def _read(self) -> Any:
        line = self._file.readline().rstrip(b"\r\n")
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest.decode()
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self._file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self._read() for _ in range(int(rest))]
        raise ConnectionError(f"redis answered {line!r}")


def _encode(words: Sequence[str]) -> bytes:
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        data = word.encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
    return b"".join(parts)
