"""Reads the Prometheus text format: a list of samples, and sums over them."""
from __future__ import annotations

import re
from dataclasses import dataclass

SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?\s+(\S+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Sample:
    name: str
    labels: dict[str, str]
    value: float


class Metrics:
    def __init__(self, text: str):
        self.samples = []
        for line in text.splitlines():
            match = SAMPLE.match(line)
            if match:
                self.samples.append(Sample(match[1], dict(LABEL.findall(match[2] or "")), float(match[3])))

    def total(self, name: str, **labels: str) -> float:
        """The sum of all samples of this name that carry these labels; 0 if there are none yet."""
        return sum(sample.value for sample in self.samples
                   if sample.name == name and labels.items() <= sample.labels.items())
