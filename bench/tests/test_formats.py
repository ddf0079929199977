"""Everything that is read from outside: HTTP answers, Prometheus text, strace lines; and what a report may say."""
import socket
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from kvern_bench import body, syscalls
from kvern_bench.exchange import parse_answer
from kvern_bench.install import REPOSITORY
from kvern_bench.prometheus import Metrics
from kvern_bench.scrub import scrub


class HttpAnswers(unittest.TestCase):
    def test_an_answer_is_complete_with_its_last_byte(self):
        whole = b"HTTP/1.1 202 Accepted\r\nContent-Length: 5\r\n\r\nhello"
        for end in range(len(whole)):
            self.assertIsNone(parse_answer(whole[:end]))
        self.assertEqual(parse_answer(whole), (202, b"hello"))

    def test_chunks_are_joined(self):
        answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        self.assertEqual(parse_answer(answer), (200, b"abcde"))
        self.assertIsNone(parse_answer(answer[:-3]))

    def test_no_content_is_an_answer(self):
        self.assertEqual(parse_answer(b"HTTP/1.1 204 No Content\r\n\r\n"), (204, b""))


class PrometheusText(unittest.TestCase):
    def test_totals_by_label(self):
        metrics = Metrics('# HELP x y\nx{function="a",outcome="ok"} 2\nx{function="a",outcome="bad"} 3\nx{function="b"} 4\n'
                          "y_count 7e2\n")
        self.assertEqual(metrics.total("x", function="a"), 5)
        self.assertEqual(metrics.total("x", function="a", outcome="ok"), 2)
        self.assertEqual(metrics.total("y_count"), 700)
        self.assertEqual(metrics.total("absent"), 0)


class StraceLines(unittest.TestCase):
    def test_an_interrupted_call_counts_once(self):
        with tempfile.NamedTemporaryFile() as file:
            Path(file.name).write_text("12 fsync(3) = 0\n12 fdatasync(4 <unfinished ...>\n13 fdatasync(5) = 0\n"
                                       "12 <... fdatasync resumed>) = 0\n")
            self.assertEqual(syscalls.count(Path(file.name)), 3)


class Bodies(unittest.TestCase):
    def test_every_body_has_the_same_size_and_its_own_digest(self):
        self.assertEqual({len(body.job_body(number)) for number in (0, 7, 123, 99_999)}, {256})
        self.assertEqual(body.digest(b"17"), body.expected_digest(17))
        self.assertNotEqual(body.digest(b"18"), body.expected_digest(17))


class Scrubbing(unittest.TestCase):
    def test_paths_addresses_and_the_host_name_go(self):
        with mock.patch.object(socket, "gethostname", return_value="secretbox"):
            text = scrub(f"{REPOSITORY}/bench/run failed on secretbox at /opt/some/where, see https://a.example/b")
        self.assertEqual(text, "bench/run failed on <host> at <path>, see <address>")

    def test_what_is_public_stays(self):
        text = "GET /v1/jobs/{id} at http://127.0.0.1:80/x, /proc/PID/io, errors but 429/503"
        self.assertEqual(scrub(text), text)


if __name__ == "__main__":
    unittest.main()
