#!/usr/bin/env python3
"""The demo: photographs in, 202 out, the server killed in the middle, every thumbnail there at the end.

Takes the path of the kvern binary. Ends by itself without a terminal, with 0 only if every thumbnail exists.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
PHOTOS = sorted(p for p in (HERE / "photos").iterdir() if p.suffix in (".jpg", ".png"))
THUMBNAILS = 3  # of each photograph, as tasks.py makes them
ROUNDS = 8  # each photograph this often: enough work to be killed in
STATE = HERE / ".kvern"
DEADLINE_S = 180


class Server:
    """One `kvern serve`, on one port and one data directory, that can be killed and started again."""

    def __init__(self, binary):
        self.binary = binary
        self.port = free_port()
        self.process = None

    def start(self):
        command = [self.binary, "serve", "--listen", f"127.0.0.1:{self.port}", "--data", str(STATE)]
        log = open(STATE / "server.log", "ab")
        # Apart from our terminal: Ctrl-C is for us, and we then ask the server to stop. Hearing both, it would stop at once.
        self.process = subprocess.Popen(command, cwd=HERE, stderr=log, stdout=log, start_new_session=True)
        began = time.monotonic()
        while not self.is_ready():
            if self.process.poll() is not None:
                sys.exit(f"the server ended with {self.process.returncode}:\n{(STATE / 'server.log').read_text()}")
            if time.monotonic() - began > DEADLINE_S:
                sys.exit("the server does not get ready")
            time.sleep(0.05)

    def is_ready(self):
        try:
            return self.get("/readyz")[0] == 200
        except (urllib.error.URLError, ConnectionError):
            return False

    def get(self, path):
        return self.ask(urllib.request.Request(f"http://127.0.0.1:{self.port}{path}"))

    def post(self, path, body, content_type):
        url = f"http://127.0.0.1:{self.port}{path}"
        return self.ask(urllib.request.Request(url, data=body, headers={"content-type": content_type}))

    @staticmethod
    def ask(request):
        try:
            with urllib.request.urlopen(request, timeout=70) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=60)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def say(text=""):
    print(text, flush=True)


def progress(done, total, note=""):
    bar = "#" * (30 * done // total)
    line = f"  [{bar:<30}] {done}/{total} {note}"
    if sys.stdout.isatty():
        print(f"\r{line:<70}", end="" if done < total else "\n", flush=True)
    elif note or done == total:
        say(line)


def submit_all(server):
    """Posts every photograph and gives the ids that were acknowledged, with the photograph's name."""
    ids = {}
    say(f"Posting {len(PHOTOS) * ROUNDS} photographs to POST /submit-job:")
    for round_number in range(ROUNDS):
        for photo in PHOTOS:
            kind = "image/png" if photo.suffix == ".png" else "image/jpeg"
            began = time.monotonic()
            status, body = server.post("/submit-job", photo.read_bytes(), kind)
            took_ms = (time.monotonic() - began) * 1000
            if status != 202:
                sys.exit(f"expected 202, got {status}: {body.decode(errors='replace')}")
            job = json.loads(body)
            ids[job["id"]] = photo.name
            if round_number == 0:
                say(f"  {photo.name:<12} {photo.stat().st_size // 1024:>4} KiB  ->  202 in {took_ms:.1f} ms  {job['id']}")
    say(f"  … and {len(ids) - len(PHOTOS)} more. {len(ids)} acknowledged.")
    return ids


def states(server, ids):
    return {job: json.loads(server.get(f"/v1/jobs/{job}")[1]).get("state", "lost") for job in ids}


def wait_until(server, ids, enough):
    """Shows progress until `enough` jobs have finished; gives the last states."""
    began = time.monotonic()
    while True:
        now = states(server, ids)
        done = sum(state in ("succeeded", "failed", "cancelled") for state in now.values())
        progress(min(done, len(ids)), len(ids))
        if done >= enough:
            return now
        if time.monotonic() - began > DEADLINE_S:
            sys.exit(f"only {done} of {len(ids)} finished in {DEADLINE_S} s")
        time.sleep(0.1)


def kill_in_the_middle(server, ids):
    """Kills the server while jobs run, and starts it again."""
    wait_until(server, ids, 3)
    say(f"\nNow kill -9 of the server, process {server.process.pid}, while {wait_for_work(server, ids)} jobs run …")
    server.kill()
    began = time.monotonic()
    server.start()
    say(f"… and started again as process {server.process.pid}: ready after {(time.monotonic() - began) * 1000:.0f} ms.")


def wait_for_work(server, ids):
    """Gives how many jobs run, once some do: a server that has nothing to do is no test."""
    began = time.monotonic()
    while time.monotonic() - began < DEADLINE_S:
        page = json.loads(server.get(f"/v1/jobs?limit={len(ids)}&state=running,queued,scheduled")[1])
        if not page["jobs"]:
            sys.exit("every job had finished before the kill: this machine is too fast for this demo")
        running = sum(job["state"] == "running" for job in page["jobs"])
        if running:
            return running
    sys.exit(f"no job ran within {DEADLINE_S} s")


def check(server, ids):
    """Every acknowledged job, its result and its files; gives how many jobs and thumbnails are missing."""
    lost, made = 0, 0
    for job in ids:
        status, body = server.get(f"/v1/jobs/{job}/result")
        if status != 200:
            lost += 1
            say(f"  {job}: {status} {body.decode(errors='replace')[:300]}")
            continue
        files = {thumbnail["path"]: thumbnail["bytes"] for thumbnail in json.loads(body)["thumbnails"]}
        made += sum((HERE / path).is_file() and (HERE / path).stat().st_size == size for path, size in files.items())
    missing = THUMBNAILS * len(ids) - made
    say(f"\n{len(ids)} acknowledged, {len(ids) - lost} finished, {lost} lost; {made} thumbnails, {missing} missing.")
    return lost + missing


def look_further(server, ids):
    job = next(iter(ids))
    base = f"http://127.0.0.1:{server.port}"
    say(f"""
The thumbnails:  {os.path.relpath(HERE / 'data')}/<job>/thumbnail-*.jpg
The console:     {base}/ui
One job:         curl {base}/v1/jobs/{job}
Its result:      curl {base}/v1/jobs/{job}/result
Its log:         curl {base}/v1/jobs/{job}/logs
Another one:     curl -i --data-binary @{os.path.relpath(PHOTOS[0])} -H 'content-type: image/png' {base}/submit-job
""")


def interrupt(*_):
    raise KeyboardInterrupt


def show(server):
    """The demo itself; gives how many jobs and thumbnails are missing at its end."""
    say("Starting the server (the first start installs Pillow for the function) …")
    server.start()
    ids = submit_all(server)
    say("\nThe function makes the thumbnails in the background:")
    kill_in_the_middle(server, ids)
    wait_until(server, ids, len(ids))
    wrong = check(server, ids)
    look_further(server, ids)
    return wrong


def stay(server):
    """Lets a person look around. Ctrl-C is the way to end that, so it is no failure."""
    try:
        say("The server goes on: Ctrl-C stops it.")
        server.process.wait()
    except KeyboardInterrupt:
        say("\nStopping.")


def main():
    server = Server(sys.argv[1])
    # A server left behind would hold the port and the data directory. INT too: a shell's background jobs ignore it.
    for end in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(end, interrupt)
    shutil.rmtree(STATE, ignore_errors=True)
    shutil.rmtree(HERE / "data", ignore_errors=True)
    STATE.mkdir(mode=0o700)
    try:
        wrong = show(server)
        if sys.stdout.isatty() and not wrong:
            stay(server)
        return 1 if wrong else 0
    except KeyboardInterrupt:
        say("\nStopping before the end.")
        return 130
    finally:
        server.stop()


if __name__ == "__main__":
    sys.exit(main())
