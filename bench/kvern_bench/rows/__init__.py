"""What is measured, one row of the issue per file. Each file ends with `CASES`."""
from __future__ import annotations

from ..cases import Case
from . import accept, cost, drain, latency, resident, size


def all_cases() -> list[Case]:
    """Every case, in the order of one round: the long ones come last."""
    cases = [*accept.CASES, *drain.CASES, *latency.CASES, *cost.CASES, *resident.CASES, *size.CASES]
    return sorted(cases, key=lambda case: case.is_long)
