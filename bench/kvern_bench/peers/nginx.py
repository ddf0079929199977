"""Starts the real Nginx in the foreground with a configuration of ours, everything that it writes in one directory."""
from __future__ import annotations

from pathlib import Path

from ..service import Service, accepts_connections

HEAD = """
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/nginx-error.log;
{main}
http {{
    access_log off;
    client_body_temp_path {directory}/nginx-body;
    proxy_temp_path {directory}/nginx-proxy;
    fastcgi_temp_path {directory}/nginx-fastcgi;
    uwsgi_temp_path {directory}/nginx-uwsgi;
    scgi_temp_path {directory}/nginx-scgi;
{http}
}}
"""


def start(directory: Path, port: int, main: str, http: str) -> Service:
    """`main` goes before the http block (workers, events), `http` inside it; `port` is where the result listens."""
    configuration = directory / "nginx.conf"
    configuration.write_text(HEAD.format(directory=directory, main=main, http=http))
    service = Service("nginx", ["nginx", "-p", str(directory), "-c", str(configuration)], directory)
    try:
        service.wait_until(lambda: accepts_connections(port))
    except BaseException:
        service.stop()
        raise
    return service
