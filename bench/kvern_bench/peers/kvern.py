"""Kvern itself: `kvern serve` on a fresh data directory, spoken to by its documented HTTP interface only."""
from __future__ import annotations

import http.client
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Callable, Optional

from .. import syscalls
from ..exchange import post_request
from ..service import BenchFailure, Service, free_port
from .kvern_metrics import FUNCTION, KvernMetrics

WORKLOADS = Path(__file__).resolve().parents[2] / "workloads" / "kvern"
PYTHON_HANDLER = "noop.py:noop"
NODE_HANDLER = "noop.mjs"
# Above any backlog that the benchmark makes: it measures the queue, not its limit.
QUEUED_MAX = 50_000_000
READY_POLL_SECONDS = 0.001


def manifest(handler: str, processes: int) -> str:
    """No instance is kept while there is no work, so that an idle server is measured alone."""
    return (f'[functions.{FUNCTION}]\nhandler = "{handler}"\nconcurrency = {processes}\n'
            f"max_queued = {QUEUED_MAX}\nscale = {{ min = 0, max = {processes} }}\n")


class KvernServer:
    def __init__(self, binary: Path, directory: Path, handler: str = PYTHON_HANDLER, processes: int = 1,
                 trace: bool = False):
        self._binary, self._directory = binary, directory
        self.trace_file: Optional[Path] = directory / "kvern.strace" if trace else None
        self.data = directory / "data"
        self.project = directory / "project"
        self.project.mkdir()
        for source in WORKLOADS.glob("noop.*"):
            shutil.copy(source, self.project)
        (self.project / "kvern.toml").write_text(manifest(handler, processes))
        self.ready_seconds = 0.0
        self._service: Optional[Service] = None
        self._metrics_connection: Optional[http.client.HTTPConnection] = None

    # The life of the process.

    def start(self) -> None:
        """Starts the server and notes how long /readyz took to say 200."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1/functions/{FUNCTION}/jobs"
        argv = [str(self._binary), "serve", "--config", str(self.project / "kvern.toml"),
                "--listen", f"127.0.0.1:{self.port}", "--data", str(self.data)]
        start = time.monotonic()
        self._service = Service("kvern", argv, self._directory, _environment(), self.trace_file)
        self._service.wait_until(self._is_ready, step=READY_POLL_SECONDS)
        self.ready_seconds = time.monotonic() - start
        self.pid = self._service.pid

    def stop(self) -> None:
        self._disconnect()
        if self._service:
            self._service.stop()

    def kill_9(self) -> None:
        """The server process alone is killed, as a fault would do it; its instances must notice by themselves."""
        assert self._service is not None
        self._service.kill_alone()
        self._disconnect()

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    # What it is asked.

    def metrics(self) -> KvernMetrics:
        try:
            return self._read_metrics()
        except (http.client.RemoteDisconnected, ConnectionError):
            # The server may have closed a connection that was idle for long; a fresh one must work.
            self._disconnect()
            return self._read_metrics()

    def _read_metrics(self) -> KvernMetrics:
        if self._metrics_connection is None:
            self._metrics_connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        self._metrics_connection.request("GET", "/metrics")
        answer = self._metrics_connection.getresponse()
        text = answer.read().decode()
        if answer.status != 200:
            raise BenchFailure(f"GET /metrics answered {answer.status}")
        return KvernMetrics(text)

    def pause(self) -> None:
        self._post(f"/v1/functions/{FUNCTION}/pause")

    def resume(self) -> None:
        self._post(f"/v1/functions/{FUNCTION}/resume")

    def _post(self, path: str, body: bytes = b"", expected: tuple[int, ...] = (200, 202, 204)) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        if answer.status not in expected:
            raise BenchFailure(f"POST {path} answered {answer.status}: {content[:200]!r}")
        return content

    def submit(self, body: bytes) -> str:
        return json.loads(self._post(f"/v1/functions/{FUNCTION}/jobs", body, (202,)))["id"]

    def submit_request(self, body: bytes) -> bytes:
        return post_request(self.port, f"/v1/functions/{FUNCTION}/jobs", body)

    def warm(self, bodies: list[bytes]) -> None:
        """Runs some jobs to their end, so that the instances are up before anything is measured."""
        wanted = self.metrics().succeeded + len(bodies)
        for body in bodies:
            self.submit(body)
        self.wait_for(lambda metrics: metrics.succeeded >= wanted, 60)

    def wait_for(self, reached: Callable[[KvernMetrics], bool], seconds_max: float, step: float = 0.02) -> KvernMetrics:
        deadline = time.monotonic() + seconds_max
        while True:
            metrics = self.metrics()
            if reached(metrics):
                return metrics
            if time.monotonic() > deadline:
                raise BenchFailure(f"kvern did not get there within {seconds_max:g} s: {metrics}")
            time.sleep(step)

    def traced_fsyncs(self) -> int:
        assert self.trace_file is not None, "only a traced server's fsyncs can be counted from outside"
        return syscalls.count(self.trace_file)

    def _disconnect(self) -> None:
        if self._metrics_connection:
            self._metrics_connection.close()
            self._metrics_connection = None

    @property
    def roots(self) -> list[int]:
        assert self._service is not None
        return [self._service.root]

    def __enter__(self) -> "KvernServer":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()


def _environment() -> dict[str, str]:
    """The handlers run on the same Python as the peers: the one that runs this file, not a wrapper found in PATH."""
    interpreter = os.path.dirname(os.path.realpath(sys.executable))
    return {"PATH": f"{interpreter}:{os.environ.get('PATH', '')}"}
