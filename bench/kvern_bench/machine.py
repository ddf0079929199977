"""What the figures were measured on: hardware and versions, without any name or path of the machine."""
from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from . import disk
from .install import BENCH, REPOSITORY

PROGRAM_VERSIONS = {
    "nginx": ["nginx", "-v"],
    "redis": ["redis-server", "--version"],
    "wrk": ["wrk", "-v"],
    "node": ["node", "--version"],
    "strace": ["strace", "--version"],
}
NUMBER = re.compile(r"\d+(?:\.\d+)+")


def describe(work: Path, wrk_threads: int) -> dict:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(pages / 2**30, 1),
        "kernel": NUMBER.search(platform.release() + ".0")[0],  # a release may carry a name; its numbers do not
        "system": _system(),
        "file_system": disk.file_system(work),
        "wrk_threads": wrk_threads,
        "versions": {**_program_versions(), "python": platform.python_version(), **_pins()},
        "source": _source(),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _system() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return sys.platform


def _program_versions() -> dict:
    versions = {}
    for name, argv in PROGRAM_VERSIONS.items():
        if shutil.which(argv[0]):
            done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
            found = NUMBER.search(done.stdout + done.stderr)
            versions[name] = found[0] if found else "unknown"
    return versions


def _pins() -> dict:
    """The pinned packages: what is pinned is what was installed."""
    pins = dict(line.split("==") for line in (BENCH / "requirements.txt").read_text().split() if "==" in line)
    pins.update(re.findall(r'"(bullmq|ioredis)": "([^"]+)"', (BENCH / "package.json").read_text()))
    return {name if name != "redis" else "redis-py": version for name, version in pins.items()}


def _source() -> str:
    """The commit that was measured, and whether files differed from it."""
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=30)
        return done.stdout.strip()
    if not shutil.which("git"):
        return "unknown"
    commit = git("rev-parse", "--short=12", "HEAD") or "unknown"
    return f"{commit} with local changes" if git("status", "--porcelain", "--untracked-files=no") else commit
