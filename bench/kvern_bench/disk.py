"""The disk under the data directory: its kind, and what one fsync costs."""
from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

MEMORY_FILE_SYSTEMS = ("tmpfs", "ramfs", "devtmpfs")
BLOCK = 4096
PROBES = 2_000
PROBE_SECONDS_MAX = 5.0


def file_system(directory: Path) -> str:
    """The type of the file system that holds `directory`: the mount with the longest matching path."""
    wanted = directory.resolve()
    best, kind = -1, "unknown"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        mount = Path(before.split()[4].encode().decode("unicode_escape"))
        # A later mount on the same path hides the earlier one, hence "at least as long".
        if (mount == wanted or mount in wanted.parents) and len(mount.parts) >= best:
            best, kind = len(mount.parts), after.split()[0]
    return kind


def fsync_times_ms(directory: Path) -> list[float]:
    """Times of single 4 KiB overwrites with fdatasync, the way a write-ahead log meets the disk."""
    path, times = directory / "fsync-probe", []
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        os.pwrite(descriptor, b"\0" * BLOCK, 0)
        os.fsync(descriptor)
        end = time.monotonic() + PROBE_SECONDS_MAX
        while len(times) < PROBES and time.monotonic() < end:
            start = time.perf_counter()
            os.pwrite(descriptor, bytes([len(times) % 256]) * BLOCK, 0)
            os.fdatasync(descriptor)
            times.append((time.perf_counter() - start) * 1000)
    finally:
        os.close(descriptor)
        path.unlink()
    return times


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def median(values: list[float]) -> float:
    return statistics.median(values)
