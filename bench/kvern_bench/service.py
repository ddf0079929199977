"""One process that the benchmark started: it is stopped by its own process id, and by nothing wider."""
from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Callable, Mapping, Optional, Sequence

from . import syscalls

START_SECONDS_MAX = 30
STOP_SECONDS_MAX = 15


class BenchFailure(Exception):
    """A case could not be measured; the message stands in the report."""


class Service:
    """Runs `argv` in a process group of its own, so that what it leaves behind can be ended as a group.

    Not in a session of its own: where the kernel shares the processors between sessions first (autogroup), the load
    generator would get half of the machine, whatever the server needs.

    With a `trace_file` the program runs under strace, which notes its fsyncs there.
    """

    def __init__(self, name: str, argv: Sequence[str], directory: Path, env: Optional[Mapping[str, str]] = None,
                 trace_file: Optional[Path] = None):
        self.name, self.trace_file = name, trace_file
        argv = syscalls.traced(argv, trace_file) if trace_file else argv
        self.log = directory / f"{name}.log"
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                list(argv), cwd=directory, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, preexec_fn=os.setpgrp)
        _running.add(self)

    @property
    def root(self) -> int:
        """The process under which everything of this service runs."""
        return self.process.pid

    @property
    def pid(self) -> int:
        """The program itself: the child of strace, if it runs under one."""
        return syscalls.traced_pid(self.process.pid) if self.trace_file else self.process.pid

    def wait_until(self, ready: Callable[[], bool], seconds_max: float = START_SECONDS_MAX, step: float = 0.01) -> None:
        """Asks `ready` until it says yes; a service that ends before that, or never gets there, is a failure."""
        deadline = time.monotonic() + seconds_max
        while not ready():
            if self.process.poll() is not None:
                raise BenchFailure(f"{self.name} ended with {self.process.returncode} at start: {self.last_words()}")
            if time.monotonic() > deadline:
                raise BenchFailure(f"{self.name} was not ready within {seconds_max:g} s: {self.last_words()}")
            time.sleep(step)

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "its log is empty"

    def stop(self) -> None:
        """Asks the program to end, waits, then ends what is left of its group."""
        if self.process.poll() is None:
            self._send_to_program(signal.SIGTERM)
            deadline = time.monotonic() + STOP_SECONDS_MAX
            while not self._ended() and time.monotonic() < deadline:
                time.sleep(0.005)
            self.kill_group()
        _running.discard(self)

    def kill_group(self) -> None:
        """The group's number is ours until its leader, our child, has been waited for; so kill first, then wait."""
        if self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(STOP_SECONDS_MAX)
        _running.discard(self)

    def kill_alone(self) -> None:
        """kill -9 for the program and nothing else, as a fault would do it."""
        self._send_to_program(signal.SIGKILL)
        self.process.wait(STOP_SECONDS_MAX)
        _running.discard(self)

    def _send_to_program(self, signal_number: int) -> None:
        """strace would not pass a signal on, so the program gets it itself."""
        try:
            os.kill(self.pid, signal_number)
        except (IndexError, ProcessLookupError):
            pass  # it ended by itself just now

    def _ended(self) -> bool:
        """Whether it has ended, leaving it unwaited."""
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def __enter__(self) -> "Service":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


# Whatever a case could not stop on its way out is stopped here; nothing that the benchmark started outlives it.
_running: set = set()


@atexit.register
def _stop_the_rest() -> None:
    for service in list(_running):
        service.kill_group()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def accepts_connections(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
