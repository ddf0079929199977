"""What a case gets: the settings, the tools, and a private directory that is gone after it."""
from __future__ import annotations

import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Optional

from . import wrk
from .body import job_body
from .cpushares import CpuWatch
from .install import Tools
from .peers.article_stack import ArticleStack
from .peers.bullmq import BullMq
from .peers.kvern import PYTHON_HANDLER, KvernServer
from .peers.nginx_static import NginxStatic
from .settings import Settings


class Bench:
    def __init__(self, settings: Settings, work: Path, tools: Tools):
        self.settings, self.work, self.tools = settings, work, tools
        self.directory: Path = work
        self.body_file = work / "body.json"
        self.body_file.write_bytes(job_body(0))

    @contextmanager
    def private_directory(self, key: str) -> Iterator[None]:
        """Data goes when the case is over; the logs of a failed case stay for whoever wants to know why."""
        self.directory = self.work / "run" / key.replace("/", "-")
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        try:
            yield
        except Exception:
            self._keep_logs()
            raise
        finally:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory = self.work

    def _keep_logs(self) -> None:
        kept = self.work / "failed" / self.directory.name
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        for log in self.directory.glob("*.log"):
            shutil.copy(log, kept)

    # The peers, each in the directory of the case.

    def nginx_static(self) -> NginxStatic:
        return NginxStatic(self.directory)

    def article(self, appendfsync: str, trace: bool = False) -> ArticleStack:
        return ArticleStack(self.directory, self.work / "venv", appendfsync, trace)

    def bullmq(self, appendfsync: str) -> BullMq:
        return BullMq(self.directory, self.work / "node", appendfsync)

    def kvern(self, handler: str = PYTHON_HANDLER, processes: int = 1, trace: bool = False) -> KvernServer:
        return KvernServer(self.tools.kvern, self.directory, handler, processes, trace)

    # The load.

    def post_load(self, server: "NginxStatic | ArticleStack | KvernServer", connections: int,
                  seconds: Optional[int] = None) -> dict:
        """Posts the body with wrk and adds the CPU shares."""
        watch = CpuWatch(lambda: server.roots)
        figures = wrk.post_load(server.url, self.body_file, seconds or self.settings.load_seconds, connections,
                                self.settings.wrk_threads)
        return {**figures, **watch.finish(figures["load_cpu_seconds"])}

    def statuses(self, server: "NginxStatic | ArticleStack | KvernServer", connections: int) -> dict:
        return wrk.count_statuses(server.url, self.body_file, self.settings.load_seconds, connections,
                                  self.settings.wrk_threads)
