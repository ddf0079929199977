"""A run: what is refused before anything starts, which cases are chosen, and what becomes of a case that fails."""
import contextlib
import io
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from kvern_bench import disk, main
from kvern_bench.cases import FAILED, NOT_RUN, OK, Case, Outcome
from kvern_bench.install import Tools
from kvern_bench.service import BenchFailure
from kvern_bench.settings import FULL


class Refusals(unittest.TestCase):
    def test_a_data_directory_in_memory_is_refused_and_not_even_made(self):
        with tempfile.TemporaryDirectory() as parent, mock.patch.object(disk, "file_system", return_value="tmpfs"):
            work, errors = Path(parent) / "work", io.StringIO()
            with contextlib.redirect_stderr(errors):
                self.assertEqual(main.main(["--work", str(work)]), main.EXIT_USAGE)
            self.assertIn("tmpfs", errors.getvalue())
            self.assertFalse(work.exists())

    def test_the_file_system_is_that_of_the_longest_mount(self):
        self.assertEqual(disk.file_system(Path("/proc/self")), "proc")


class CalmDisk(unittest.TestCase):
    """Times of rows of fsyncs, in milliseconds; each pause takes its length on a clock of the test's."""

    def wait(self, rows):
        now, rows = [0.0], iter(rows)

        def pause(seconds):
            now[0] += seconds

        with mock.patch.object(disk.time, "monotonic", lambda: now[0]), mock.patch.object(disk.time, "sleep", pause), \
                mock.patch.object(disk.os, "sync"), mock.patch.object(disk, "fsync_times_ms", lambda *_: next(rows)):
            return disk.wait_until_calm(Path("/"))

    def test_a_calm_disk_is_not_waited_for(self):
        self.assertEqual(self.wait([[0.1, 4.9]]), 0.0)

    def test_one_long_fsync_is_waited_for(self):
        self.assertEqual(self.wait([[0.1, 90.0], [5.1], [0.2]]), 2 * disk.CALM_PAUSE_SECONDS)

    def test_a_disk_that_is_never_calm_is_not_waited_for_without_end(self):
        self.assertEqual(self.wait(iter(lambda: [90.0], None)), disk.CALM_SECONDS_MAX)


class Choice(unittest.TestCase):
    def test_rows_and_cases_by_the_start_of_their_name(self):
        self.assertEqual({case.row for case in main.chosen("latency,cost")}, {"latency", "cost"})
        self.assertEqual([case.key for case in main.chosen("drain/kvern-python")], ["drain/kvern-python"])
        self.assertEqual(main.chosen("nothing"), [])

    def test_long_cases_come_last(self):
        long = [case.is_long for case in main.chosen("")]
        self.assertEqual(long, sorted(long))

    def test_every_case_is_measured_in_every_round(self):
        cases = main.chosen("")
        bench = mock.Mock(settings=FULL, work=Path("/"))
        ran = mock.Mock(side_effect=lambda bench, case, number: Outcome(case.key, number, OK))
        with mock.patch.object(main, "run_case", ran), mock.patch.object(main.disk, "fsync_times_ms", lambda _: [1.0]), \
                mock.patch.object(main.machine, "describe", lambda *_: {}):
            report = main.run_rounds(bench, cases)
        self.assertEqual({len(report.results.of(case.key)) for case in cases}, {FULL.rounds})


class OneCase(unittest.TestCase):
    def run_case(self, run, needs=(), missing=None):
        bench = mock.Mock(private_directory=lambda key: contextlib.nullcontext(), tools=Tools())
        bench.tools.missing = missing or {}
        with mock.patch.object(main, "say"), mock.patch.object(main.disk, "wait_until_calm", lambda _: 0.0):
            return main.run_case(bench, Case("row/case", "label", run, needs), 1)

    def test_values_are_kept(self):
        outcome = self.run_case(lambda bench: {"rate": 1.0})
        self.assertEqual((outcome.status, outcome.values), (OK, {"rate": 1.0}))

    def test_a_missing_peer_is_not_run_with_the_reason(self):
        outcome = self.run_case(lambda bench: {}, ("wrk",), {"wrk": "no such package"})
        self.assertEqual((outcome.status, outcome.reason), (NOT_RUN, "wrk: no such package"))

    def test_a_failure_ends_the_case_and_not_the_run(self):
        def run(bench):
            raise BenchFailure("it fell over")
        outcome = self.run_case(run)
        self.assertEqual((outcome.status, outcome.reason), (FAILED, "it fell over"))


if __name__ == "__main__":
    unittest.main()
