"""Nginx answering a fixed 202: the ceiling of what one machine can answer when nothing is kept."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

from ..service import Service, free_port
from . import nginx

MAIN = """
worker_processes auto;
events { worker_connections 8192; use epoll; }
"""
HTTP = """
    # The default closes a connection after 1,000 requests; that would cost the peer for nothing.
    keepalive_requests 1000000000;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            default_type application/json;
            return 202 '{{"id":"00000000-0000-7000-8000-000000000000","state":"queued","function":"noop"}}';
        }}
    }}
"""


class NginxStatic:
    def __init__(self, directory: Path):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/submit-job"
        self._directory = directory
        self._service: Optional[Service] = None

    @property
    def roots(self) -> list[int]:
        assert self._service is not None
        return [self._service.root]

    def __enter__(self) -> "NginxStatic":
        self._service = nginx.start(self._directory, self.port, MAIN, HTTP.format(port=self.port))
        return self

    def __exit__(self, *_: Any) -> None:
        assert self._service is not None
        self._service.stop()
