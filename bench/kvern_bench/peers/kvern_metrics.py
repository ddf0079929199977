"""The names of Kvern's metrics, in this one file."""
from __future__ import annotations

from ..prometheus import Metrics

FUNCTION = "noop"
OPEN_STATES = ("scheduled", "queued", "running")


class KvernMetrics(Metrics):
    """One reading of /metrics."""

    @property
    def accepted(self) -> float:
        return self.total("kvern_jobs_accepted_total", function=FUNCTION)

    @property
    def succeeded(self) -> float:
        """Only these are counted as done: the metric also counts attempts that ended otherwise and run again."""
        return self.total("kvern_jobs_finished_total", function=FUNCTION, outcome="succeeded")

    @property
    def fsyncs(self) -> float:
        return self.total("kvern_fsync_seconds_count")

    @property
    def open_jobs(self) -> float:
        """Jobs that are not at their end: waiting for their time, queued or running."""
        return sum(self.total("kvern_queue_depth", function=FUNCTION, state=state) for state in OPEN_STATES)

    def __str__(self) -> str:
        return f"{self.accepted:.0f} accepted, {self.succeeded:.0f} succeeded, {self.open_jobs:.0f} open"
