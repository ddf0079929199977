"""What is printed and written: the figures to reach, the one table, every raw row, the machine, the method."""
from __future__ import annotations

import datetime
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from . import table, targets
from .cases import Results
from .install import BENCH
from .scrub import scrub
from .settings import Settings

# What a system does for itself stays below this; a compiler does not.
QUIET_CORES_MAX = 0.25


@dataclass
class Report:
    settings: Settings
    cases: list
    results: Results
    machine: dict
    # One probe before each round and one after the last.
    fsync_p50_ms: list
    fsync_p99_ms: list

    @property
    def disk_p50_ms(self) -> float:
        """The best probe: whatever disturbs the machine only makes an fsync slower, and must not lower a bar."""
        return min(self.fsync_p50_ms)

    @property
    def verdicts(self) -> list:
        return targets.judge(targets.Measured(self.results, self.disk_p50_ms))

    @property
    def broken_promises(self) -> list:
        return [verdict for verdict in self.verdicts if verdict.promise and verdict.verdict == targets.MISSED]

    @property
    def missed(self) -> list:
        return [verdict for verdict in self.verdicts if verdict.verdict == targets.MISSED]

    def figures(self) -> str:
        """The part that a terminal shows; the file has the method too."""
        return scrub("\n\n".join([self._opening(), self._targets(), self._table(), self._raw_rows()]))

    def markdown(self) -> str:
        method = (BENCH / "METHOD.md").read_text().strip()
        # The method is ours and public; scrubbing it could only damage it.
        return f"{self.figures()}\n\n{method}\n"

    def as_json(self) -> str:
        content = {
            "date": _today(), "form": self.settings.form, "settings": asdict(self.settings), "machine": self.machine,
            "fsync_p50_ms": self.fsync_p50_ms, "fsync_p99_ms": self.fsync_p99_ms,
            "targets": [asdict(verdict) for verdict in self.verdicts],
            "outcomes": [asdict(outcome) for outcome in self.results.outcomes],
        }
        return scrub(json.dumps(content, indent=1)) + "\n"

    def write(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "latest.md").write_text(self.markdown())
        (directory / "latest.json").write_text(self.as_json())

    def _opening(self) -> str:
        machine = self.machine
        versions = ", ".join(f"{name} {version}" for name, version in sorted(machine["versions"].items()))
        disk_kind = "up to" if self.disk_p50_ms <= targets.FAST_DISK_FSYNC_P50_MS else "above"
        parts = [
            "# Benchmark",
            f"Made by `bench/run` on {_today()} from source {machine['source']}; do not edit. {self._form()}",
            f"**Machine**: {machine['cores']} cores ({machine['cpu']}), {machine['memory_gib']} GiB, "
            f"{machine['system']}, Linux {machine['kernel']}, {machine['file_system']}; server, peers and load "
            f"generator all on it, over loopback; wrk with {machine['wrk_threads']} threads.",
            f"**fsync p50 of the data directory**: {self.disk_p50_ms:.3f} ms (4 KiB overwrite and fdatasync, the "
            f"best of the probes {_join(self.fsync_p50_ms)}; p99 {_join(self.fsync_p99_ms)}), "
            f"{disk_kind} {targets.FAST_DISK_FSYNC_P50_MS} ms.",
            f"**Versions**: {versions}.",
            self._disturbance(),
        ]
        return "\n\n".join(filter(None, parts))

    def _disturbance(self) -> str:
        """Says so if something else used the machine: then the figures are not to be trusted, whatever they are."""
        shares = [outcome.values["other_cores"] for outcome in self.results.outcomes if "other_cores" in outcome.values]
        disturbed = [share for share in shares if share > QUIET_CORES_MAX]
        if not disturbed:
            return ""
        return (f"**The machine was not quiet**: in {len(disturbed)} of {len(shares)} measurements something else used "
                f"more than {QUIET_CORES_MAX} cores, at most {max(disturbed):.2f}.")

    def _form(self) -> str:
        rounds = f"Median of {self.settings.rounds} interleaved rounds." if self.settings.rounds > 1 else "One round."
        if self.settings.form == "full":
            return rounds
        return f"{rounds} **Quick form: short loads, small backlogs. It shows that everything works, not how fast.**"

    def _targets(self) -> str:
        rows = [("figure", "bar", "measured", "verdict", "note")]
        rows += [(each.name, each.bar, each.measured, each.verdict, _one_line(each.reason)) for each in self.verdicts]
        return "## Figures to reach\n\n" + table.markdown(rows)

    def _table(self) -> str:
        rows = [tuple(_one_line(cell) for cell in row) for row in table.lines(self.cases, self.results)]
        return "## All cases\n\n" + table.markdown(rows)

    def _raw_rows(self) -> str:
        rows = [("case", "round", "status", "values")]
        for outcome in self.results.outcomes:
            values = ", ".join(f"{name} {_plain(value)}" for name, value in outcome.values.items())
            rows.append((outcome.case, outcome.round, outcome.status, _one_line(values or outcome.reason)))
        return "## Raw rows\n\n" + table.markdown(rows)


def _plain(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _join(values: list) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("|", "/")


def _today() -> str:
    return datetime.date.today().isoformat()
