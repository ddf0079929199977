"""One-second windows: a stall is found wherever it lies, and the ends of the load are not taken for one."""
import unittest

from kvern_bench.windows import slowest_window, window_rates


def samples(seconds, stall=None, idle=1.0):
    """1,000 a second, ten samples a second, `idle` seconds of nothing before and after, no progress during `stall`."""
    made, count, time = [], 0, 0.0
    while time < seconds + 2 * idle:
        running = idle <= time < idle + seconds
        if running and not (stall and stall[0] <= time - idle < stall[1]):
            count += 100
        made.append((time, count))
        time = round(time + 0.1, 6)
    return made


class Windows(unittest.TestCase):
    def test_a_steady_load_has_equal_windows_and_its_ends_are_left_out(self):
        for rate in window_rates(samples(10)):
            self.assertAlmostEqual(rate, 1_000, delta=101)

    def test_a_stall_across_two_whole_seconds_is_seen_in_full(self):
        slowest, median = slowest_window(samples(10, stall=(4.5, 5.5)))
        self.assertLess(slowest, 0.15 * median)

    def test_without_progress_there_is_no_window(self):
        self.assertEqual(slowest_window([(0.0, 5), (1.0, 5), (2.0, 5)]), (None, None))


if __name__ == "__main__":
    unittest.main()
