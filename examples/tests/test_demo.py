"""What the demo calls a success, without a server."""
import importlib.util
import io
import json
import tempfile
import unittest
from contextlib import redirect_stdout
from pathlib import Path
from unittest import mock

DEMO = Path(__file__).resolve().parents[1] / "image-upload" / "demo.py"
spec = importlib.util.spec_from_file_location("demo", DEMO)
demo = importlib.util.module_from_spec(spec)
spec.loader.exec_module(demo)


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Hasty(Terminal):
    """Somebody who does not read to the end of the line."""

    def write(self, text):
        if "Ctrl-C stops it" in text:
            raise KeyboardInterrupt
        return super().write(text)


class FakeServer:
    """Answers with what the test says, path by path, one answer after the other."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.process = mock.Mock(pid=1)
        self.stopped = False

    def get(self, _path):
        return 200, json.dumps(self.answers.pop(0)).encode()

    def stop(self):
        self.stopped = True


def quietly(call, *arguments):
    with redirect_stdout(io.StringIO()):
        return call(*arguments)


class Check(unittest.TestCase):
    def test_a_result_without_thumbnails_is_no_success(self):
        self.assertEqual(quietly(demo.check, FakeServer({"thumbnails": []}), {"a": "x.png"}), 3)

    def test_a_thumbnail_listed_thrice_is_one(self):
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"1234")
            file.flush()
            listed = {"thumbnails": [{"path": file.name, "bytes": 4}] * 3}
            self.assertEqual(quietly(demo.check, FakeServer(listed), {"a": "x.png"}), 2)


class Kill(unittest.TestCase):
    def test_it_waits_until_a_job_runs(self):
        queued, running = {"jobs": [{"state": "queued"}]}, {"jobs": [{"state": "running"}, {"state": "queued"}]}
        self.assertEqual(demo.wait_for_work(FakeServer(queued, running), {"a": "x"}), 1)

    def test_a_kill_in_no_work_is_no_demo(self):
        with self.assertRaises(SystemExit) as ended:
            demo.wait_for_work(FakeServer({"jobs": []}), {"a": "x"})
        self.assertIn("had finished before the kill", str(ended.exception))


class Interrupt(unittest.TestCase):
    def run_main(self, show, wait=None, terminal=Terminal):
        server = FakeServer()
        server.process.wait.side_effect = wait
        with tempfile.TemporaryDirectory() as folder, mock.patch.multiple(
            demo, HERE=Path(folder), STATE=Path(folder) / "state", Server=lambda _: server, show=show
        ), mock.patch("sys.argv", ["demo.py", "kvern"]), mock.patch("signal.signal"), redirect_stdout(terminal()):
            code = demo.main()
        self.assertTrue(server.stopped)
        return code

    def test_after_a_good_demo_it_is_the_way_to_leave(self):
        self.assertEqual(self.run_main(lambda _: 0, wait=KeyboardInterrupt), 0)
        self.assertEqual(self.run_main(lambda _: 0, terminal=Hasty), 0)

    def test_before_its_end_it_is_none(self):
        self.assertEqual(self.run_main(mock.Mock(side_effect=KeyboardInterrupt)), 130)

    def test_a_bad_demo_does_not_go_on(self):
        self.assertEqual(self.run_main(lambda _: 1), 1)


if __name__ == "__main__":
    unittest.main()
