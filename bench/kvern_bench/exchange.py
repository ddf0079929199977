"""A small HTTP/1.1 load generator that keeps every answer, which wrk cannot do.

One thread, one epoll, keep-alive connections, one request under way on each. It is used where each id or each result
matters: to fill a backlog with numbered jobs, to fetch every result, to find every acknowledged id after a kill.
"""
from __future__ import annotations

import re
import select
import socket
import time
from dataclasses import dataclass
from typing import Callable, Iterable, Iterator, Optional

from .service import BenchFailure

CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
RECEIVE_BYTES = 64 * 1024

# (index of the request, status, body)
OnAnswer = Callable[[int, int, bytes], None]


@dataclass
class Exchanged:
    answered: int
    broken: int
    seconds: float


class Connection:
    def __init__(self, port: int):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.index = -1


def parse_answer(received: bytes) -> Optional[tuple[int, bytes]]:
    """Status and body once the answer is complete, None before that."""
    head_end = received.find(b"\r\n\r\n")
    if head_end < 0:
        return None
    head, rest = received[:head_end], received[head_end + 4:]
    status = int(head[9:12])
    length = CONTENT_LENGTH.search(head)
    if length:
        return (status, rest) if len(rest) >= int(length.group(1)) else None
    if CHUNKED.search(head):
        return (status, _join_chunks(rest)) if rest.endswith(b"0\r\n\r\n") else None
    return status, b""


def _join_chunks(rest: bytes) -> bytes:
    body = b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        bytes_in_chunk = int(size.split(b";")[0], 16)
        if bytes_in_chunk == 0:
            return body
        body, rest = body + rest[:bytes_in_chunk], rest[bytes_in_chunk + 2:]


def exchange(port: int, requests: Iterable[bytes], on_answer: OnAnswer, connections: int = 64,
             seconds_max: float = 120) -> Exchanged:
    """Sends all requests and hands over each answer. A connection that breaks is counted and not opened again."""
    start = time.monotonic()
    exchanged = Exchanged(answered=0, broken=0, seconds=0.0)
    numbered = enumerate(requests)
    poll, busy = select.epoll(), {}
    try:
        _open_all(port, numbered, connections, poll, busy)
        while busy:
            if time.monotonic() - start > seconds_max:
                raise BenchFailure(f"{len(busy)} connections still waited for an answer after {seconds_max:g} s")
            for descriptor, _ in poll.poll(1.0):
                _serve(busy, descriptor, poll, numbered, on_answer, exchanged)
    finally:
        for connection in busy.values():
            connection.socket.close()
        poll.close()
    exchanged.seconds = time.monotonic() - start
    return exchanged


def _open_all(port: int, numbered: Iterator[tuple[int, bytes]], connections: int, poll: select.epoll,
              busy: dict[int, Connection]) -> None:
    for _ in range(connections):
        connection = Connection(port)
        if not _send_next(connection, numbered):
            connection.socket.close()
            return
        busy[connection.socket.fileno()] = connection
        poll.register(connection.socket.fileno(), select.EPOLLIN)


def _send_next(connection: Connection, numbered: Iterator[tuple[int, bytes]]) -> bool:
    index, request = next(numbered, (-1, b""))
    if index < 0:
        return False
    connection.index, connection.received = index, b""
    connection.socket.sendall(request)
    return True


def _serve(busy: dict[int, Connection], descriptor: int, poll: select.epoll, numbered: Iterator[tuple[int, bytes]],
           on_answer: OnAnswer, exchanged: Exchanged) -> None:
    connection = busy[descriptor]
    open_still = False
    try:
        data = connection.socket.recv(RECEIVE_BYTES)
        connection.received += data
        answer = parse_answer(connection.received) if data else None
        if answer:
            exchanged.answered += 1
            on_answer(connection.index, *answer)
            open_still = _send_next(connection, numbered)
        else:
            open_still = bool(data)
            exchanged.broken += 0 if data else 1
    except OSError:
        exchanged.broken += 1
    if not open_still:
        poll.unregister(descriptor)
        del busy[descriptor]
        connection.socket.close()


def post_request(port: int, path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def get_request(port: int, path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
