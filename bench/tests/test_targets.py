"""The verdicts: a bar on its edge, a slow disk, a missing case, a promise that broke in one round of three."""
import unittest

from kvern_bench import targets
from kvern_bench.cases import FAILED, OK, Outcome, Results
from kvern_bench.targets import MISSED, NO_BAR, NOT_RUN, Measured, judge


def measured(fsync_p50_ms=0.1, **cases):
    """Cases by name with "_" for "/" and "-"; each a list of values, one per round."""
    results = Results()
    names = {case.replace("/", "_").replace("-", "_"): case for target in targets.TARGETS for case in target.cases}
    for name, rounds in cases.items():
        for number, values in enumerate(rounds, 1):
            status = FAILED if isinstance(values, str) else OK
            results.add(Outcome(names[name], number, status, values if status == FAILED else "",
                                {} if status == FAILED else values))
    return Measured(results, fsync_p50_ms)


def verdict(of, beginning):
    found = [each for each in judge(of) if each.name.startswith(beginning)]
    assert len(found) == 1, (beginning, found)
    return found[0]


class Verdicts(unittest.TestCase):
    def test_a_ratio_on_its_bar_is_ok_and_just_below_it_is_missed(self):
        for rate, expected in ((35_000, OK), (34_999, MISSED)):
            of = measured(accept_kvern_paused_64=[{"rate": rate}], accept_nginx_64=[{"rate": 100_000}])
            self.assertEqual(verdict(of, "durable accepts, function paused, against Nginx").verdict, expected)

    def test_a_miss_does_not_look_like_the_bar(self):
        of = measured(accept_kvern_paused_64=[{"rate": 34_990}], accept_nginx_64=[{"rate": 100_000}])
        self.assertEqual(verdict(of, "durable accepts, function paused, against Nginx").measured, "0.3499 x")

    def test_below_excludes_the_bar(self):
        of = measured(latency_kvern=[{"p50_ms": 2.0}], latency_celery_everysec=[{"p50_ms": 2.0}])
        self.assertEqual(verdict(of, "submit to result on an idle server, p50, below").verdict, MISSED)

    def test_on_a_slow_disk_the_bar_follows_the_disk(self):
        of = measured(fsync_p50_ms=1.0, accept_kvern_paused_64=[{"rate": 25_600, "p99_ms": 9}],
                      accept_nginx_64=[{"rate": 100_000}])
        self.assertEqual(verdict(of, "durable accepts on a slower disk").verdict, OK)
        self.assertEqual(verdict(of, "durable accepts, function paused, against Nginx").verdict, NO_BAR)
        self.assertEqual(verdict(of, "accept p99").verdict, NO_BAR)

    def test_on_a_fast_disk_the_slow_bar_does_not_bind(self):
        of = measured(accept_kvern_paused_64=[{"rate": 1}])
        self.assertEqual(verdict(of, "durable accepts on a slower disk").verdict, NO_BAR)

    def test_without_its_case_a_figure_is_not_run_and_says_why(self):
        self.assertEqual(verdict(measured(), "accept p99").verdict, NOT_RUN)
        self.assertEqual(verdict(measured(), "accept p99").reason, "not run: left out of this run")

    def test_a_case_that_failed_is_not_passed_off_as_not_run(self):
        of = measured(accept_kvern_paused_64=["no such luck"])
        self.assertEqual(verdict(of, "accept p99").verdict, targets.FAILED)
        self.assertEqual(verdict(of, "accept p99").reason, "failed: no such luck")

    def test_a_promise_broken_in_one_round_is_broken(self):
        of = measured(accept_kvern_paused_64=[{"lost_ids": 0}, {"lost_ids": 1}, {"lost_ids": 0}])
        self.assertEqual(verdict(of, "acknowledged ids lost").verdict, MISSED)

    def test_a_round_that_failed_is_named_beside_a_good_verdict(self):
        of = measured(accept_kvern_paused_64=[{"lost_ids": 0}, "it fell over"])
        self.assertEqual(verdict(of, "acknowledged ids lost").verdict, OK)
        self.assertEqual(verdict(of, "acknowledged ids lost").reason, "1 of 2 rounds failed: it fell over")

    def test_the_article_counts_in_its_faster_mode(self):
        of = measured(accept_kvern_paused_64=[{"rate": 30_000}], accept_article_everysec_64=[{"rate": 900}])
        of.results.add(Outcome("accept/article-always-64", 1, "ok", "", {"rate": 1_001}))
        self.assertEqual(verdict(of, "durable accepts, function paused, against the article").verdict, MISSED)

    def test_every_case_of_a_target_exists(self):
        from kvern_bench.rows import all_cases
        known = {case.key for case in all_cases()}
        self.assertEqual({case for target in targets.TARGETS for case in target.cases} - known, set())


if __name__ == "__main__":
    unittest.main()
