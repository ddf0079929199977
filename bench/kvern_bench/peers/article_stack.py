"""The article's stack as it is written there: Nginx, three web processes, Celery on Redis.

What differs from the article is listed here and in the report: addresses and ports; the append-only file that makes
Redis keep what it acknowledged; a result backend for the worker where a case needs results; a no-op for the task; no
access log and log level WARNING, which both help the stack.
"""
from __future__ import annotations

import json
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Optional

from ..procfs import descendants
from ..service import BenchFailure, Service, accepts_connections, free_port
from ..settings import PROCESSES
from . import nginx
from .redis_server import RedisServer

WORKLOADS = Path(__file__).resolve().parents[2] / "workloads" / "article"
WEB_PROCESSES = 3
RESULTS_DATABASE = 1
HELPER_SECONDS_MAX = 120

MAIN = """
worker_processes auto;
events { worker_connections 4096; use epoll; }
"""
HTTP = """
    upstream backend_workers {{
        {servers}
        keepalive 32;
    }}
    server {{
        listen 127.0.0.1:{port};
        location /submit-job {{
            proxy_pass http://backend_workers;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header X-Real-IP $remote_addr;
            proxy_read_timeout 5s;
        }}
    }}
"""


class ArticleStack:
    """Starts Redis at once; `start_web` and `start_worker` add the other parts, as a case needs them."""

    def __init__(self, directory: Path, venv: Path, appendfsync: str, trace: bool = False):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/submit-job"
        self._directory, self._bin = directory, venv / "bin"
        self.redis = RedisServer(directory, appendfsync, trace)
        self._stack = ExitStack()
        self._services: list[Service] = []
        self.worker: Optional[Service] = None

    @property
    def roots(self) -> list[int]:
        return self.redis.roots + [service.root for service in self._services]

    def worker_processes(self) -> list[int]:
        assert self.worker is not None
        return descendants(self.worker.pid)

    def start_web(self) -> None:
        ports = [free_port() for _ in range(WEB_PROCESSES)]
        webs = [self._start_web_process(number, port) for number, port in enumerate(ports)]
        for web, port in zip(webs, ports):
            web.wait_until(lambda port=port: accepts_connections(port))
        servers = " ".join(f"server 127.0.0.1:{port};" for port in ports)
        self._keep(nginx.start(self._directory, self.port, MAIN, HTTP.format(servers=servers, port=self.port)))

    def _start_web_process(self, number: int, port: int) -> Service:
        # Its control socket would be made in the user's home; the article's gunicorn has none.
        argv = [str(self._bin / "gunicorn"), "-w", "1", "-k", "gthread", "--threads", "8", "--keep-alive", "30",
                "--no-control-socket", "--bind", f"127.0.0.1:{port}", "app:app"]
        return self._keep(Service(f"web-{number}", argv, self._directory, self._env(results=False)))

    def start_worker(self) -> None:
        argv = [str(self._bin / "celery"), "-A", "tasks", "worker", "--pool", "prefork",
                "--concurrency", str(PROCESSES), "--loglevel", "WARNING"]
        self.worker = self._keep(Service("celery", argv, self._directory, self._env(results=True)))

    def queue(self, bodies: bytes) -> None:
        """Queues one task per line, by Celery's own producer."""
        self._helper("fill.py", [], bodies, results=False)

    def latencies_ms(self, samples: int, body: bytes) -> list[float]:
        """`delay().get()` times. Also the way to wait for a worker that has just been started."""
        return json.loads(self._helper("latency.py", [str(samples)], body, results=True))

    def _helper(self, script: str, arguments: list[str], stdin: bytes, results: bool) -> bytes:
        done = subprocess.run([str(self._bin / "python"), str(WORKLOADS / script), *arguments], input=stdin,
                              capture_output=True, cwd=self._directory, env=self._env(results),
                              timeout=HELPER_SECONDS_MAX)
        if done.returncode != 0:
            raise BenchFailure(f"{script} failed: {done.stderr.decode(errors='replace').strip()[-300:]}")
        return done.stdout

    def _env(self, results: bool) -> dict[str, str]:
        """The web processes have no result backend, as in the article: one would only slow their `delay` down."""
        broker = f"redis://127.0.0.1:{self.redis.port}"
        env = {"BENCH_BROKER": f"{broker}/0", "PYTHONPATH": str(WORKLOADS), "PYTHONDONTWRITEBYTECODE": "1",
               "PATH": f"{self._bin}:/usr/sbin:/usr/bin:/sbin:/bin", "C_FORCE_ROOT": "true"}
        if results:
            env["BENCH_BACKEND"] = f"{broker}/{RESULTS_DATABASE}"
        return env

    def _keep(self, service: Service) -> Service:
        self._services.append(service)
        return self._stack.enter_context(service)

    def __enter__(self) -> "ArticleStack":
        self._stack.enter_context(self.redis)
        return self

    def __exit__(self, *_: Any) -> None:
        self._stack.close()
