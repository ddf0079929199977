"""Finds the tools that the peers need, and installs what is missing: says what, and why.

Debian packages only as root; Python and Node packages in bench/.work, never in the system. Whatever cannot be had is
noted with the reason, and the cases that need it are reported as not run.
"""
from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Iterator, Optional

from .progress import say

BENCH = Path(__file__).resolve().parent.parent
REPOSITORY = BENCH.parent
# program: (Debian package, why)
PROGRAMS = {
    "nginx": ("nginx", "the static 202 and the article's gateway"),
    "redis-server": ("redis-server", "the queue of the article's stack and of BullMQ"),
    "wrk": ("wrk", "the load generator"),
    "strace": ("strace", "to count fsyncs from outside"),
    "node": ("nodejs", "BullMQ and Kvern's Node handler"),
    "npm": ("npm", "to install BullMQ"),
}
# Asks Debian's maintainer scripts not to start what they install.
POLICY = Path("/usr/sbin/policy-rc.d")
INSTALL_SECONDS_MAX = 900
BUILD_SECONDS_MAX = 3600


class Tools:
    """`missing` maps the name of a tool to the reason why it cannot be used."""

    def __init__(self) -> None:
        self.missing: dict[str, str] = {}
        self.kvern: Path = REPOSITORY / "target" / "release" / "kvern"

    def reason(self, needs: tuple) -> Optional[str]:
        reasons = [f"{name}: {self.missing[name]}" for name in needs if name in self.missing]
        return "; ".join(reasons) or None


def prepare(work: Path, needs: set, may_install: bool, kvern: Optional[Path]) -> Tools:
    """Sees to the tools in `needs` and to no others: a run of one row installs and builds only what that row uses."""
    tools = Tools()
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    _programs(tools, needs | ({"npm"} if "bullmq" in needs else set()), may_install)
    if "celery" in needs:
        _python_packages(tools, work, may_install)
    if "bullmq" in needs:
        _node_packages(tools, work, may_install)
    if "kvern" in needs:
        _kvern(tools, kvern)
    for name, reason in tools.missing.items():
        say(f"not available: {name}: {reason}")
    return tools


def _programs(tools: Tools, needs: set, may_install: bool) -> None:
    absent = [name for name in PROGRAMS if name in needs and not shutil.which(name)]
    packages = {PROGRAMS[name][0]: PROGRAMS[name][1] for name in absent}
    # Debian splits it off from Python itself.
    if "celery" in needs and importlib.util.find_spec("ensurepip") is None:
        packages["python3-venv"] = "a virtual environment for the article's stack"
    failure = _install_debian(packages, may_install) if packages else None
    for name in absent:
        if not shutil.which(name):
            tools.missing[name] = failure or f"not found after the installation of {PROGRAMS[name][0]}"


def _install_debian(packages: dict[str, str], may_install: bool) -> Optional[str]:
    """The reason why nothing was installed, or None."""
    if not may_install:
        return "not installed, and --no-install was given"
    if not shutil.which("apt-get"):
        return "not installed, and this is not Debian (no apt-get)"
    if os.geteuid() != 0:
        return f"not installed; as root: apt-get install {' '.join(packages)}"
    for package, why in packages.items():
        say(f"installing the Debian package {package}: {why}")
    with _services_stay_stopped():
        install = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
        failure = _run("apt-get install", install)
        if failure:
            # The package lists may be old or absent.
            _run("apt-get update", ["apt-get", "update"])
            failure = _run("apt-get install", install)
    if not failure and {"nginx", "redis-server"} & set(packages):
        say("Debian enables nginx and redis-server at boot; the benchmark does not need that: "
            "systemctl disable nginx redis-server")
    return failure


@contextlib.contextmanager
def _services_stay_stopped() -> Iterator[None]:
    """Debian starts a server when it installs it, on its usual port. The benchmark starts its own, on free ports."""
    ours = not POLICY.exists()
    if ours:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        yield
    finally:
        if ours:
            POLICY.unlink()


def _python_packages(tools: Tools, work: Path, may_install: bool) -> None:
    requirements, venv = BENCH / "requirements.txt", work / "venv"
    stamp = _stamp(requirements)
    if _is_stamped(venv, stamp):
        return
    if not may_install:
        tools.missing["celery"] = "not installed, and --no-install was given"
        return
    say("installing Flask, gunicorn, Celery and redis into bench/.work/venv: the article's stack")
    shutil.rmtree(venv, ignore_errors=True)
    failure = (_run("python -m venv", [sys.executable, "-m", "venv", str(venv)])
               or _run("pip install", [str(venv / "bin" / "pip"), "install", "--quiet", "-r", str(requirements)]))
    if failure:
        tools.missing["celery"] = failure
    else:
        (venv / "stamp").write_text(stamp)


def _node_packages(tools: Tools, work: Path, may_install: bool) -> None:
    package, node = BENCH / "package.json", work / "node"
    stamp = _stamp(package)
    if not _is_stamped(node, stamp):
        if "npm" in tools.missing or not may_install:
            tools.missing["bullmq"] = tools.missing.get("npm", "not installed, and --no-install was given")
            return
        say("installing BullMQ into bench/.work/node: a peer")
        shutil.rmtree(node, ignore_errors=True)
        node.mkdir(parents=True)
        shutil.copy(package, node)
        # No lock file: it would name the registry of this machine.
        failure = _run("npm install", ["npm", "install", "--no-package-lock", "--no-audit", "--no-fund"], node)
        if failure:
            tools.missing["bullmq"] = failure
            return
        (node / "stamp").write_text(stamp)
    # Node looks for packages beside the script, so the scripts go where the packages are.
    for script in (BENCH / "workloads" / "bullmq").glob("*.mjs"):
        shutil.copy(script, node)


def _kvern(tools: Tools, given: Optional[Path]) -> None:
    if given:
        tools.kvern = given.resolve()
    elif shutil.which("cargo"):
        say("building kvern (cargo build --release -p kvern)")
        failure = _run("cargo build", ["cargo", "build", "--release", "--locked", "-p", "kvern"], REPOSITORY,
                       BUILD_SECONDS_MAX)
        if failure:
            tools.missing["kvern"] = failure
            return
    if not os.access(tools.kvern, os.X_OK):
        tools.missing["kvern"] = "no binary, and no cargo to build it"


def _stamp(pins: Path) -> str:
    return hashlib.sha256(pins.read_bytes()).hexdigest()


def _is_stamped(directory: Path, stamp: str) -> bool:
    """An installation counts only when it was finished, and from the same pinned versions."""
    file = directory / "stamp"
    return file.exists() and file.read_text() == stamp


def _run(what: str, argv: list[str], directory: Optional[Path] = None,
         seconds_max: int = INSTALL_SECONDS_MAX) -> Optional[str]:
    """The reason why it failed, or None."""
    try:
        done = subprocess.run(argv, cwd=directory, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              errors="replace", timeout=seconds_max)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{what}: {type(error).__name__}"
    lines = done.stdout.strip().splitlines()
    return None if done.returncode == 0 else f"{what} failed: {lines[-1][:200] if lines else 'no message'}"
