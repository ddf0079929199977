"""The report: a disturbed probe lowers no bar, and what is missing, missed or disturbed is said."""
import unittest

from kvern_bench.cases import FAILED, NOT_RUN, OK, Outcome, Results
from kvern_bench.report import Report
from kvern_bench.rows import all_cases
from kvern_bench.settings import QUICK
from kvern_bench.targets import MISSED

MACHINE = {"cores": 2, "cpu": "a processor", "memory_gib": 8, "system": "Debian", "kernel": "6.1.0",
           "file_system": "ext4", "wrk_threads": 2, "source": "abc", "versions": {"nginx": "1.22"}}


def report(outcomes, fsync_p50_ms=(0.1, 0.1)):
    results = Results()
    for outcome in outcomes:
        results.add(outcome)
    return Report(QUICK, all_cases(), results, MACHINE, list(fsync_p50_ms), [1.0, 1.0])


class Reports(unittest.TestCase):
    def test_one_slow_probe_does_not_make_a_slow_disk(self):
        made = report([Outcome("accept/kvern-paused-64", 1, OK, "", {"p99_ms": 9.0})], (0.1, 3.0))
        self.assertIn("accept p99, function paused", [each.name for each in made.missed])

    def test_a_missed_figure_and_a_missing_peer_stand_in_the_text(self):
        text = report([Outcome("accept/kvern-paused-64", 1, OK, "", {"rate": 1.0, "p99_ms": 9.0}),
                       Outcome("drain/kvern-node", 1, NOT_RUN, "node: no such package"),
                       Outcome("latency/kvern", 1, FAILED, "it fell over")]).markdown()
        for words in (MISSED, "not run: node: no such package", "failed: it fell over", "## Method", "## Raw rows"):
            self.assertIn(words, text)

    def test_a_disturbed_machine_is_named(self):
        quiet = {"rate": 1.0, "server_cores": 1.0, "load_cores": 0.5, "other_cores": 0.1}
        self.assertNotIn("not quiet", report([Outcome("accept/nginx-64", 1, OK, "", quiet)]).figures())
        disturbed = {**quiet, "other_cores": 0.9}
        self.assertIn("not quiet", report([Outcome("accept/nginx-64", 1, OK, "", disturbed)]).figures())


if __name__ == "__main__":
    unittest.main()
