"""What a case is: one thing that is measured once per round, and what came of it.

A case returns a flat dictionary of numbers. By convention `rate` is per second, `*_ms` are milliseconds, `*_bytes`
bytes, `*_cores` CPU shares in cores, and 0 or 1 stands for a check that failed or held.
"""
from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Callable, Optional

if TYPE_CHECKING:
    from .bench import Bench

Values = dict  # of str to float

# A case that is "not run" lacks a peer; one that "failed" had what it needs, and could not be measured.
OK, NOT_RUN, FAILED = "ok", "not run", "failed"


@dataclass(frozen=True)
class Case:
    """`key` is `row/system-variant`; `needs` names the tools without which the case is reported as not run."""

    key: str
    label: str
    run: Callable[["Bench"], Values]
    needs: tuple
    # Comes last in its round, so that whatever disturbs a round disturbs the short cases together.
    is_long: bool = False
    # Takes as long as many others together: only when it is named, or all are wanted.
    is_extra: bool = False

    @property
    def row(self) -> str:
        return self.key.partition("/")[0]


@dataclass
class Outcome:
    case: str
    round: int
    status: str
    reason: str = ""
    values: Values = field(default_factory=dict)


class Results:
    """All outcomes of a run, and medians over its rounds."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def add(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def of(self, key: str) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.case == key]

    def values(self, key: str, name: str) -> list[float]:
        return [outcome.values[name] for outcome in self.of(key)
                if outcome.status == OK and outcome.values.get(name) is not None]

    def median(self, key: str, name: str) -> Optional[float]:
        values = self.values(key, name)
        return statistics.median(values) if values else None

    def failed(self, key: str) -> bool:
        return any(outcome.status == FAILED for outcome in self.of(key))

    def reason(self, key: str) -> str:
        """Why there is no figure, or that some rounds gave none."""
        outcomes = self.of(key)
        if not outcomes:
            return "not run: left out of this run"
        bad = [outcome for outcome in outcomes if outcome.status != OK]
        if not bad:
            return ""
        text = f"{bad[0].status}: {bad[0].reason}"
        return text if len(bad) == len(outcomes) else f"{len(bad)} of {len(outcomes)} rounds {text}"
