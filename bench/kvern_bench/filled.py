"""Data directories with a long queue: each is filled once in a run, with a key for every job, and copied for each case."""
from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

from . import wrk
from .peers.kvern import KvernServer
from .progress import say
from .service import BenchFailure
from .settings import CONNECTIONS

FILL_STEP_SECONDS = 5
# A disk on which this takes longer has no use for such a queue.
FILL_SECONDS_MAX = 1800


def give_filled(bench, server: KvernServer, jobs: int) -> None:
    """Gives a server that is not started a data directory whose function is paused and has this many jobs, or some more."""
    kept = bench.work / "filled" / str(jobs)
    if not kept.exists():
        say(f"queueing {jobs:,} jobs once, for all rounds …")
        _fill(bench, server, jobs)
        kept.parent.mkdir(exist_ok=True)
        server.data.rename(kept)
    # Not shutil: cp shares the blocks where the file system can.
    subprocess.run(["cp", "--archive", "--reflink=auto", str(kept), str(server.data)], check=True)


def _fill(bench, server: KvernServer, jobs: int) -> None:
    with server:
        server.pause()
        deadline = time.monotonic() + FILL_SECONDS_MAX
        while (queued := server.metrics().open_jobs) < jobs:
            if time.monotonic() > deadline:
                raise BenchFailure(f"only {queued:,.0f} of {jobs:,} jobs were queued within {FILL_SECONDS_MAX} s")
            wrk.post_keyed_load(server.url, bench.body_file, FILL_STEP_SECONDS, CONNECTIONS, bench.settings.wrk_threads)


def forget_filled(work: Path) -> None:
    """They are large; nothing of them outlives the run."""
    shutil.rmtree(work / "filled", ignore_errors=True)
