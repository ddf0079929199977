"""The one table: a line per case with its median, its ratios to the peers, CPU shares and the value of each round."""
from __future__ import annotations

from typing import Callable, Optional

from .cases import Case, Results

# Cases that a case of the same row is compared with: (case, name in the table). Accepts at 2,000 connections have
# their own references, so that like is compared with like.
REFERENCES = {
    "accept": (("accept/nginx-64", "Nginx"), ("accept/article-everysec-64", "article")),
    "accept-2000": (("accept/nginx-2000", "Nginx"), ("accept/article-everysec-2000", "article")),
    "drain": (("drain/celery-everysec", "Celery"), ("drain/bullmq-everysec", "BullMQ")),
    "latency": (("latency/celery-everysec", "Celery"),),
    "cost": (("cost/article-always", "article, always"),),
    "resident": (),
    "size": (("size/kvern-0", "empty"),),
}
HEADER = ("row", "case", "median", "p50 ms", "p99 ms", "ratio", "CPU cores: server, load, others", "rounds")


def headline(case: Case) -> tuple:
    """The figure that stands for a case: (name of the value, how it is written)."""
    if case.row in ("accept", "drain", "size"):
        return "rate", lambda value: f"{value:,.0f} /s"
    if case.row == "latency" or case.key == "resident/kvern-start":
        return "p50_ms", lambda value: f"{value:.2f} ms"
    if case.row == "cost":
        return "fsyncs_per_job", lambda value: f"{value:.4f} fsyncs/job"
    return "resident_bytes", lambda value: f"{value / 2**20:.1f} MiB"


def lines(cases: list[Case], results: Results) -> list[tuple]:
    return [HEADER, *(_line(case, results) for case in cases)]


def _line(case: Case, results: Results) -> tuple:
    name, write = headline(case)
    value = results.median(case.key, name)
    if value is None:
        return case.row, case.label, results.reason(case.key), "", "", "", "", ""
    rounds = ", ".join(write(each).split(" ")[0] for each in results.values(case.key, name))
    reason = results.reason(case.key)
    median = "; ".join(filter(None, [write(value), *_extras(case, results)]))
    return (case.row, case.label, median, _milliseconds(case, results, "p50_ms"),
            _milliseconds(case, results, "p99_ms"), _ratios(case, results, name), _shares(case, results),
            f"{rounds}; {reason}" if reason else rounds)


# value: how it is written beside the headline, where a case has it
EXTRAS: dict[str, Callable[[float], str]] = {
    "drained_rate": lambda value: f"drains {value:,.0f} /s meanwhile",
    "accepts_per_fsync": lambda value: f"{value:.1f} accepts/fsync",
    "keyed_rate": lambda value: f"{value:,.0f} /s with a key each",
    "backlog_drained_rate": lambda value: f"drains {value:,.0f} /s",
    "ready_ms": lambda value: f"{value:.1f} ms to /readyz after kill -9",
    "started_bytes": lambda value: f"{value / 2**20:.1f} MiB after the start",
    "slowest_window_rate": lambda value: f"slowest window {value:,.0f} /s",
    "median_window_rate": lambda value: f"median window {value:,.0f} /s",
    "resident_max_bytes": lambda value: f"at most {value / 2**20:.1f} MiB resident",
    "lost_ids": lambda value: f"{value:.0f} ids lost by kill -9",
    "status_errors": lambda value: f"{value:,.0f} answers of 400 or more" if value else "",
    "other_errors": lambda value: f"{value:,.0f} errors but 429/503",
    "read_errors": lambda value: f"{value:,.0f} read errors" if value else "",
    "timeouts": lambda value: f"{value:,.0f} time-outs" if value else "",
    "wrong_results": lambda value: f"{value:,.0f} wrong results",
    "device_bytes_per_job": lambda value: f"{value:,.0f} device bytes/job",
    "cpu_ms_per_minute": lambda value: f"{value:.2f} ms CPU per minute",
    "again_ms": lambda value: f"{value:.1f} ms on existing data",
    "fresh_ms": lambda value: f"{value:.1f} ms on an empty directory",
    "worker_bytes": lambda value: f"worker {value / 2**20:.1f} MiB",
}


def _extras(case: Case, results: Results) -> list[str]:
    found = []
    for name, write in EXTRAS.items():
        value = results.median(case.key, name)
        if value is not None:
            found.append(write(value))
    return found


def _milliseconds(case: Case, results: Results, name: str) -> str:
    value = results.median(case.key, name)
    return "" if value is None else f"{value:.2f}"


def _ratios(case: Case, results: Results, name: str) -> str:
    group = "accept-2000" if case.key.endswith("-2000") else case.row
    value, parts = results.median(case.key, name), []
    for reference, words in REFERENCES[group]:
        other: Optional[float] = results.median(reference, name)
        if reference != case.key and value is not None and other:
            parts.append(f"{value / other:.3g} x {words}")
    return ", ".join(parts)


def _shares(case: Case, results: Results) -> str:
    shares = [results.median(case.key, name) for name in ("server_cores", "load_cores", "other_cores")]
    return "" if None in shares else ", ".join(f"{share:.2f}" for share in shares)


def markdown(rows: list[tuple]) -> str:
    """Padded columns, so that the source reads as well as the page."""
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(rows[0]))]
    written = [" | ".join(str(cell).ljust(width) for cell, width in zip(row, widths)) for row in rows]
    rule = " | ".join("-" * width for width in widths)
    return "\n".join(f"| {line} |" for line in [written[0], rule, *written[1:]])
