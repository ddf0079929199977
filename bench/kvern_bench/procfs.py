"""What Linux says about a process: its descendants, CPU, memory and bytes written. Readers only, all from /proc."""
from __future__ import annotations

import os
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; the name before them may hold blanks."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def descendants(root: int) -> list[int]:
    """`root` and every process below it, as of now."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            children.setdefault(int(stat_fields(int(entry))[1]), []).append(int(entry))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended while we looked
    found, waiting = [], [root]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting.extend(children.get(pid, []))
    return found


def cpu_ticks_seconds(pid: int) -> float:
    """User and system time, in steps of a clock tick (10 ms): good for seconds of load."""
    fields = stat_fields(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def cpu_exact_seconds(pid: int) -> float:
    """Time on a CPU of all live threads, in nanoseconds by the scheduler: good for an idle process."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            total += int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total / 1e9


def status_bytes(pid: int, field: str) -> int:
    """A size of /proc/PID/status in bytes: VmRSS is resident now, VmHWM the highest that it was."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise KeyError(field)


def resident_bytes(pid: int) -> int:
    return status_bytes(pid, "VmRSS")


def resident_max_bytes(pid: int) -> int:
    return status_bytes(pid, "VmHWM")


def device_bytes_written(pid: int) -> int:
    """Bytes that the process caused to be sent to the storage layer."""
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "write_bytes":
            return int(value)
    raise KeyError("write_bytes")


def machine_busy_seconds() -> float:
    """CPU time of the whole machine that was neither idle, nor waiting for a disk, nor stolen by the host."""
    user, nice, system, _idle, _iowait, irq, softirq = map(int, Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / TICKS_PER_SECOND
