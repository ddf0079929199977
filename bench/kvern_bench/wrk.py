"""Runs wrk and reads its figures: rate, percentiles, errors, and the CPU that it used itself."""
from __future__ import annotations

import json
import os
import subprocess
import uuid
from pathlib import Path

from .service import BenchFailure

SCRIPTS = Path(__file__).resolve().parent.parent / "workloads" / "wrk"
MARK = "KVERN_BENCH "
# Longer than any answer should take; wrk counts what takes longer as a time-out.
ANSWER_SECONDS_MAX = 10


def post_load(url: str, body_file: Path, seconds: int, connections: int, threads: int) -> dict[str, float]:
    """Posts the body as fast as `connections` allow. `rate` counts only answers below 400."""
    return _rated(_run("submit.lua", url, body_file, seconds, connections, threads))


def post_keyed_load(url: str, body_file: Path, seconds: int, connections: int, threads: int) -> dict[str, float]:
    """As `post_load`, each request with an idempotency key that was never used before."""
    return _rated(_run("keyed.lua", url, body_file, seconds, connections, threads, uuid.uuid4().hex))


def count_statuses(url: str, body_file: Path, seconds: int, connections: int, threads: int) -> dict[str, int]:
    """The same load again, answers counted by status."""
    figures = _run("statuses.lua", url, body_file, seconds, connections, threads)
    return {key: int(value) for key, value in figures.items() if key.isdigit()}


def _rated(figures: dict[str, float]) -> dict[str, float]:
    accepted = figures["requests"] - figures["status_errors"]
    return {**figures, "accepted": accepted, "rate": accepted / figures["seconds"]}


def _run(script: str, url: str, body_file: Path, seconds: int, connections: int, threads: int,
         *more: str) -> dict[str, float]:
    argv = ["wrk", f"-t{min(threads, connections)}", f"-c{connections}", f"-d{seconds}s",
            "--timeout", f"{ANSWER_SECONDS_MAX}s", "-s", str(SCRIPTS / script), url, "--", str(body_file), *more]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    except BaseException:
        process.kill()
        process.wait()
        raise
    lines = [line for line in output.splitlines() if line.startswith(MARK)]
    if process.returncode != 0 or not lines:
        raise BenchFailure(f"wrk ended with {process.returncode}: {output.strip()[-300:]}")
    return {**json.loads(lines[0][len(MARK):]), "load_cpu_seconds": usage.ru_utime + usage.ru_stime}
