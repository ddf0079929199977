"""The figures to reach, one row each: what is compared, the bar, and the verdict. The bars come from the issues.

On a slow disk (fsync p50 above 0.3 ms) the bars that compare durable accepts with something that does not fsync are
replaced by one that is relative to the disk. The replaced rows stay in the table, without a verdict.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Optional

from .cases import Results
from .settings import CONNECTIONS

FAST_DISK_FSYNC_P50_MS = 0.3
MIB = 2**20

OK, MISSED, NOT_RUN, FAILED, NO_BAR = "ok", "MISSED", "not run", "FAILED", "no bar on this disk"


@dataclass(frozen=True)
class Target:
    """`measure` returns None when a case that it needs gave nothing. `disk` says on which disks the bar holds."""

    name: str
    measure: Callable[["Measured"], Optional[float]]
    bar: Callable[["Measured"], float]
    at_least: bool
    unit: str
    cases: tuple
    disk: str = "any"  # "any", "fast" or "slow"
    # A broken promise, not a missed speed: the run as a whole fails.
    promise: bool = False
    # "below" and "under" exclude the bar itself.
    strict: bool = False


@dataclass(frozen=True)
class Verdict:
    name: str
    bar: str
    measured: str
    verdict: str
    promise: bool
    reason: str = ""


@dataclass(frozen=True)
class Measured:
    results: Results
    fsync_p50_ms: float

    def median(self, case: str, name: str) -> Optional[float]:
        return self.results.median(case, name)

    def ratio(self, name: str, case: str, to: str) -> Optional[float]:
        above, below = self.median(case, name), self.median(to, name)
        return above / below if above is not None and below else None

    def worst(self, case: str, name: str) -> Optional[float]:
        """The largest over all rounds, not the median: a promise that holds two times in three is broken."""
        return max(self.results.values(case, name), default=None)

    @property
    def fast_disk(self) -> bool:
        return self.fsync_p50_ms <= FAST_DISK_FSYNC_P50_MS


def constant(value: float) -> Callable[[Measured], float]:
    return lambda _: value


def _times_article(measured: Measured) -> Optional[float]:
    ours = measured.median("accept/kvern-paused-64", "rate")
    modes = [measured.median(f"accept/article-{mode}-64", "rate") for mode in ("everysec", "always")]
    known = [rate for rate in modes if rate]
    # Against the faster of the two modes, so that the ratio is the smaller one.
    return ours / max(known) if ours is not None and known else None


def _slowest_window_share(measured: Measured) -> Optional[float]:
    slowest = measured.median("accept/kvern-windows", "slowest_window_rate")
    median = measured.median("accept/kvern-windows", "median_window_rate")
    return slowest / median if slowest is not None and median else None


def _disk_bar(measured: Measured) -> float:
    return 0.4 * CONNECTIONS / (measured.fsync_p50_ms / 1000)


def _celery_latency(measured: Measured) -> float:
    """Below Celery's in any case: also below its faster mode."""
    modes = [measured.median(f"latency/celery-{mode}", "p50_ms") for mode in ("everysec", "always")]
    return min((value for value in modes if value is not None), default=float("nan"))


def _in_mib(case: str, name: str) -> Callable[[Measured], Optional[float]]:
    def measure(measured: Measured) -> Optional[float]:
        value = measured.worst(case, name)
        return value / MIB if value is not None else None
    return measure


def _keyed_share(measured: Measured) -> Optional[float]:
    keyed, plain = measured.median(MOST, "keyed_rate"), measured.median(EMPTY, "rate")
    return keyed / plain if keyed is not None and plain else None


def _resident_growth(measured: Measured) -> Optional[float]:
    """After the accepts, against a server that has just started on an empty directory."""
    most, empty = measured.median(MOST, "resident_bytes"), measured.median(EMPTY, "started_bytes")
    return (most - empty) / MIB if most is not None and empty is not None else None


def _drain_promises(handler: str, case: str) -> list[Target]:
    return [Target(f"{handler}: {name}", lambda m, value=value: m.worst(case, value), constant(0), False, "",
                   (case,), promise=True)
            for name, value in (("results missing or different by hash", "wrong_results"),
                                ("drained jobs that did not succeed", "not_succeeded"))]


TRACED = "accept/kvern-strace-64"
PAUSED, DRAINING, MANY = "accept/kvern-paused-64", "accept/kvern-draining-64", "accept/kvern-paused-2000"
EMPTY, MOST = "size/kvern-0", "size/kvern-10m"
NGINX, BULLMQ = "accept/nginx-64", "drain/bullmq-everysec"
TARGETS = [
    Target("durable accepts, function paused, against Nginx's static 202",
           lambda m: m.ratio("rate", PAUSED, NGINX), constant(0.35), True, "x", (PAUSED, NGINX), disk="fast"),
    Target("durable accepts while one Python instance drains, against Nginx's static 202",
           lambda m: m.ratio("rate", DRAINING, NGINX), constant(0.28), True, "x", (DRAINING, NGINX), disk="fast"),
    Target("durable accepts, function paused, against the article's stack", _times_article, constant(30), True, "x",
           (PAUSED, "accept/article-everysec-64"), disk="fast"),
    Target("accept p99, function paused", lambda m: m.median(PAUSED, "p99_ms"), constant(8), False, "ms", (PAUSED,),
           disk="fast"),
    Target("slowest one-second window of a long run, against the median one", _slowest_window_share, constant(0.5),
           True, "x", ("accept/kvern-windows",), disk="fast"),
    Target("durable accepts on a slower disk: 0.4 x 64 / fsync p50", lambda m: m.median(PAUSED, "rate"), _disk_bar,
           True, "/s", (PAUSED,), disk="slow"),
    Target("accepts with 2,000 connections, against 64", lambda m: m.ratio("rate", MANY, PAUSED), constant(0.8), True,
           "x", (MANY, PAUSED)),
    Target("errors with 2,000 connections, other than 429 and 503", lambda m: m.worst(MANY, "other_errors"),
           constant(0), False, "", (MANY,)),
    Target("resident with 2,000 connections, highest", _in_mib(MANY, "resident_max_bytes"), constant(200), False,
           "MiB", (MANY,), strict=True),
    Target("no-op jobs drained, Python, against Celery prefork with as many processes (everysec)",
           lambda m: m.ratio("rate", "drain/kvern-python", "drain/celery-everysec"), constant(15), True, "x",
           ("drain/kvern-python", "drain/celery-everysec")),
    Target("no-op jobs drained, Node, against BullMQ (everysec)",
           lambda m: m.ratio("rate", "drain/kvern-node", BULLMQ), constant(1), True, "x", ("drain/kvern-node", BULLMQ)),
    Target("submit to result on an idle server, p50", lambda m: m.median("latency/kvern", "p50_ms"), constant(1.5),
           False, "ms", ("latency/kvern",), disk="fast"),
    Target("submit to result on an idle server, p50, below Celery's",
           lambda m: m.median("latency/kvern", "p50_ms"), _celery_latency, False, "ms",
           ("latency/kvern", "latency/celery-everysec"), strict=True),
    Target("resident, idle, no instance", _in_mib("resident/kvern-idle", "resident_bytes"), constant(15), False, "MiB",
           ("resident/kvern-idle",)),
    Target("CPU of an idle server per minute", lambda m: m.median("resident/kvern-idle", "cpu_ms_per_minute"),
           constant(10), False, "ms", ("resident/kvern-idle",)),
    Target("start to /readyz, median", lambda m: m.median("resident/kvern-start", "p50_ms"), constant(100), False, "ms",
           ("resident/kvern-start",)),
    Target("resident after one million queued jobs", _in_mib("resident/kvern-backlog", "resident_bytes"), constant(128),
           False, "MiB", ("resident/kvern-backlog",)),
    Target("accepts with ten million queued jobs, against none", lambda m: m.ratio("rate", MOST, EMPTY), constant(0.75),
           True, "x", (MOST, EMPTY)),
    Target("accepts with a key each and ten million such jobs, against no keys and none", _keyed_share, constant(0.5),
           True, "x", (MOST, EMPTY)),
    Target("drain with ten million queued jobs, against few", lambda m: m.ratio("backlog_drained_rate", MOST, EMPTY),
           constant(0.75), True, "x", (MOST, EMPTY)),
    Target("resident with ten million queued jobs, above an empty server's", _resident_growth, constant(64), False, "MiB",
           (MOST, EMPTY)),
    Target("restart to /readyz after kill -9 with ten million queued jobs", lambda m: m.median(MOST, "ready_ms"), constant(2000),
           False, "ms", (MOST,)),
    Target("accepts per fsync, by Kvern's metric (each of 64 connections waits for its fsync)",
           lambda m: m.worst(PAUSED, "accepts_per_fsync"), constant(64), False, "", (PAUSED,), promise=True),
    Target("accepts per fsync, counted by strace", lambda m: m.worst(TRACED, "accepts_per_fsync"), constant(64),
           False, "", (TRACED,), promise=True),
    Target("acknowledged ids lost by kill -9", lambda m: m.worst(PAUSED, "lost_ids"), constant(0), False, "",
           (PAUSED,), promise=True),
    Target("acknowledged jobs of the whole load lost by kill -9", lambda m: m.worst(PAUSED, "lost"), constant(0),
           False, "", (PAUSED,), promise=True),
    *_drain_promises("Python", "drain/kvern-python"),
    *_drain_promises("Node", "drain/kvern-node"),
]


def judge(measured: Measured) -> list[Verdict]:
    return [_judge_one(target, measured) for target in TARGETS]


def _judge_one(target: Target, measured: Measured) -> Verdict:
    value, bar = target.measure(measured), target.bar(measured)
    # A round that failed is named even where the others give a verdict.
    reason = "; ".join(dict.fromkeys(filter(None, map(measured.results.reason, target.cases))))
    relation = ("at least" if target.at_least else "below" if target.strict else "at most")
    text = f"{relation} {_number(bar)} {target.unit}".strip()
    if value is None or bar != bar:
        failed = any(measured.results.failed(case) for case in target.cases)
        return Verdict(target.name, text, "-", FAILED if failed else NOT_RUN, target.promise, reason)
    holds = value >= bar if target.at_least else value < bar if target.strict else value <= bar
    binding = target.disk == "any" or (target.disk == "fast") == measured.fast_disk
    verdict = (OK if holds else MISSED) if binding else NO_BAR
    return Verdict(target.name, text, f"{_number(value)} {target.unit}".strip(), verdict, target.promise, reason)


def _number(value: float) -> str:
    if value != value:
        return "?"
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    # Four digits, so that a figure just below its bar does not look as if it had reached it.
    return f"{value:.4g}"
