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

# What the case before wrote and deleted, the disk may still be busy with.
CALM_PROBES = 200
CALM_MS_MAX = 5.0
CALM_PAUSE_SECONDS = 0.5
CALM_SECONDS_MAX = 60.0


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


def wait_until_calm(directory: Path) -> float:
    """Waits, within a bound, until no fsync of a row takes long. Gives the seconds that it took."""
    start = time.monotonic()
    os.sync()
    while max(fsync_times_ms(directory, CALM_PROBES)) > CALM_MS_MAX and time.monotonic() - start < CALM_SECONDS_MAX:
        time.sleep(CALM_PAUSE_SECONDS)
    return time.monotonic() - start


def fsync_times_ms(directory: Path, probes: int = PROBES) -> list[float]:
    """Times of single 4 KiB overwrites with fdatasync, the way a write-ahead log meets the disk."""
    path, times = directory / "fsync-probe", []
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        os.pwrite(descriptor, b"\0" * BLOCK, 0)
        os.fsync(descriptor)
        end = time.monotonic() + PROBE_SECONDS_MAX
        while len(times) < probes and time.monotonic() < end:
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
