"""Counts the fsync and fdatasync calls of a server by running it under strace.

A line is written per call, so that the calls of a window can be counted, not only those of a whole life. With the
seccomp filter only these two calls stop the server, so it keeps nearly all of its speed.
"""
from __future__ import annotations

import re
from pathlib import Path
from typing import Sequence

from . import procfs

# A call that another thread interrupts is written twice ("unfinished", then "resumed"); only the first form has "(".
CALL = re.compile(rb"\bf(?:data)?sync\(")


def traced(argv: Sequence[str], trace_file: Path) -> list[str]:
    return ["strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=fsync,fdatasync", "-e", "signal=none",
            "-o", str(trace_file), "--", *argv]


def count(trace_file: Path) -> int:
    return len(CALL.findall(trace_file.read_bytes()))


def traced_pid(strace_pid: int) -> int:
    """The process that strace runs: its only child."""
    return procfs.descendants(strace_pid)[1]
