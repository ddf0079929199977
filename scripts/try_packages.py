#!/usr/bin/env python3
"""Uses the tarball and the wheel in a folder as a user would: unpacks, installs, makes a function, runs a job, removes.

Arguments: [--static] the binary that they were packed from, the folder. Ends with 0 only if all of it works.
"""

import base64
import csv
import filecmp
import hashlib
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import venv
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEADLINE_S = 60


def main():
    *options, packed, folder = sys.argv[1:]
    folder = Path(folder).resolve()
    (tarball,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    with tempfile.TemporaryDirectory(prefix="kvern-packages-") as scratch:
        scratch = Path(scratch)
        same_bytes(packed, folder, scratch / "again")
        binary = unpacked(tarball, scratch / "tarball")
        if "--static" in options:
            is_static(binary)
        works(binary, scratch / "from-tarball")
        record_is_right(wheel)
        python = fresh_venv(scratch / "venv")
        binary = installed(python, wheel)
        works(binary, scratch / "from-wheel")
        uninstalled(python, binary)


def same_bytes(packed, folder, again):
    run([HERE / "pack", packed, again])
    names = sorted(path.name for path in folder.iterdir())
    _, *differ = filecmp.cmpfiles(folder, again, names, shallow=False)
    check(not any(differ), f"packed twice, the same bytes: {', '.join(names)}", differ)


def unpacked(tarball, target):
    with tarfile.open(tarball) as archive:
        archive.extractall(target)
    (root,) = target.iterdir()
    expected = {"kvern", "README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE", "docs", "examples", "completions"}
    absent = expected - {path.name for path in root.iterdir()}
    check(not absent, f"{tarball.name} unpacks to one folder, {root.name}", absent)
    return root / "kvern"


def is_static(binary):
    """No interpreter means no loader, and so no library of the machine that it runs on."""
    headers = run(["readelf", "--program-headers", "--wide", binary])
    check("INTERP" not in headers, "the binary is static", headers)


def works(binary, folder):
    """Everything that a first user does, in an empty folder and with nothing of ours in the environment."""
    folder.mkdir()
    version = run([binary, "--version"], folder).strip()
    check(version.startswith("kvern "), f"{folder.name}: --version says {version!r}")
    for shell in ("bash", "zsh", "fish"):
        check("invoke" in run([binary, "completions", shell], folder), f"{folder.name}: completions {shell}")
    made = folder / "made"
    made.mkdir()
    run([binary, "new", "greet"], made)
    run([binary, "check"], made)
    check((made / "kvern.toml").is_file(), f"{folder.name}: new and check")
    empty = folder / "empty"
    empty.mkdir()
    runs_a_job(binary, empty)


def runs_a_job(binary, folder):
    """`kvern dev` in an empty folder, a job over HTTP, its result, and an end when asked."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    with open(folder.parent / "dev.log", "w+") as log:
        command = [binary, "dev", "--listen", f"127.0.0.1:{port}"]
        server = subprocess.Popen(command, cwd=folder, env=environment(), stdout=log, stderr=log)
        try:
            wait_until_ready(server, base, log)
            job = json.loads(ask(f"{base}/v1/functions/hello/jobs", b'{"name": "Ada"}'))
            state = json.loads(ask(f"{base}/v1/jobs/{job['id']}?wait=30s"))["state"]
            result = ask(f"{base}/v1/jobs/{job['id']}/result")
            check(json.loads(result) == {"hello": "Ada"}, f"{folder.parent.name}: a Python job {state}: {result}")
            jobs = run([binary, "--server", f"http://localhost:{port}", "jobs", "list", "-o", "json"], folder)
            check(job["id"] in jobs, f"{folder.parent.name}: the client finds localhost")
        finally:
            server.terminate()
            code = server.wait(timeout=DEADLINE_S)
    check(code == 0, f"{folder.parent.name}: dev ends when asked", code)


def wait_until_ready(server, base, log):
    began = time.monotonic()
    while True:
        try:
            return ask(f"{base}/readyz")
        except (urllib.error.URLError, ConnectionError):
            waited = time.monotonic() - began
        if server.poll() is not None or waited > DEADLINE_S:
            log.seek(0)
            check(False, "the server gets ready", log.read())
        time.sleep(0.05)


def record_is_right(wheel):
    """Each file is in RECORD with its hash and size, and nothing else is."""
    with zipfile.ZipFile(wheel) as archive:
        (record,) = (name for name in archive.namelist() if name.endswith("/RECORD"))
        rows = {name: (digest, size) for name, digest, size in csv.reader(io.StringIO(archive.read(record).decode()))}
        found = {name: described(archive.read(name)) for name in archive.namelist()}
        found[record] = ("", "")
        check(rows == found and archive.testzip() is None, f"{wheel.name}: RECORD names {len(rows)} files", rows)


def described(data):
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"sha256={digest}", str(len(data))


def fresh_venv(folder):
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


def installed(python, wheel):
    """pip takes the wheel without an index, and shows what it installed."""
    run([python, "-m", "pip", "install", "--quiet", "--no-index", wheel])
    shown = run([python, "-m", "pip", "show", "--files", "kvern"])
    expected = ("bin/kvern", "licenses/LICENSE-MIT", "licenses/LICENSE-APACHE")
    check(all(name in shown for name in expected), "pip installs the wheel and shows its files", shown)
    return python.parent / "kvern"


def uninstalled(python, binary):
    run([python, "-m", "pip", "uninstall", "--quiet", "--yes", "kvern"])
    left = [str(path) for path in python.parent.parent.rglob("kvern*")]
    check(not binary.exists() and not left, "pip uninstalls it and leaves nothing", left)


def ask(url, body=None):
    with urllib.request.urlopen(urllib.request.Request(url, data=body), timeout=DEADLINE_S) as answer:
        return answer.read().decode()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment():
    return {name: value for name, value in os.environ.items() if not name.startswith("KVERN_")}


def run(command, folder=None):
    done = subprocess.run([str(word) for word in command], cwd=folder, env=environment(), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=600)
    check(done.returncode == 0, None, f"{command}\n{done.stdout}{done.stderr}")
    return done.stdout


def check(is_good, what, found=""):
    """Says what holds; ends the whole with what was found if it does not."""
    if not is_good:
        sys.exit(f"FAILED: {what or 'a command'}: {found}")
    if what:
        print(f"  ok  {what}", flush=True)


if __name__ == "__main__":
    main()
