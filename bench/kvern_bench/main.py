"""The command line and the run itself: prepare, rounds, report."""
from __future__ import annotations

import argparse
import fcntl
import resource
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

from . import disk, install, machine
from .bench import Bench
from .cases import FAILED, NOT_RUN, OK, Case, Outcome, Results
from .filled import forget_filled
from .progress import say
from .report import Report
from .rows import all_cases
from .settings import FULL, QUICK, Settings

EXIT_OK, EXIT_BROKEN, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130
WORK = install.BENCH / ".work"
# A wait shorter than this is not worth a line.
TOLD_SECONDS = 2.0
PUBLISHED = install.REPOSITORY / "docs" / "benchmarks"


def arguments(argv: list) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/run", description="Measures Kvern beside its peers and writes docs/benchmarks/latest.md and .json.",
        epilog="A run that is quick or partial writes to bench/.work/report instead. Exit status: 0 done, 1 a promise "
               "was broken (a job lost, a result wrong, too few fsyncs) or a case failed, or with --strict a figure "
               "was missed; 2 usage.")
    parser.add_argument("--quick", action="store_true", help="short loads, one round: does everything work?")
    parser.add_argument("--only", default="", metavar="ROW[,ROW]",
                        help="rows or cases by the start of their name: accept, drain/kvern, latency, cost, resident, size")
    parser.add_argument("--long", action="store_true", help="with the row of ten million jobs, size")
    parser.add_argument("--rounds", type=int, metavar="N", help="interleaved rounds (3, quick: 1)")
    parser.add_argument("--threads", type=int, metavar="N", help="threads of wrk (2)")
    parser.add_argument("--list", action="store_true", help="list the cases and exit")
    parser.add_argument("--no-install", action="store_true", help="install nothing; what is missing is not run")
    parser.add_argument("--kvern", type=Path, metavar="FILE", help="measure this binary instead of building one")
    parser.add_argument("--work", type=Path, default=WORK, metavar="DIR",
                        help="directory for data and peers, on the disk to be measured (bench/.work)")
    parser.add_argument("--strict", action="store_true", help="exit with 1 also if a figure was missed")
    return parser.parse_args(argv)


def settings_of(options: argparse.Namespace) -> Settings:
    settings = QUICK if options.quick else FULL
    if options.rounds is not None:
        settings = replace(settings, rounds=max(1, options.rounds))
    if options.threads is not None:
        settings = replace(settings, wrk_threads=max(1, options.threads))
    return settings


def chosen(only: str, long: bool = False) -> list:
    names = [name for name in only.split(",") if name]
    if names:
        return [case for case in all_cases() if any(case.key.startswith(name) for name in names)]
    return [case for case in all_cases() if long or not case.is_extra]


def main(argv: list) -> int:
    options = arguments(argv)
    cases = chosen(options.only, options.long)
    if options.list or not cases:
        print("\n".join(f"{case.key:28} {case.label}" for case in cases) or f"no case begins with {options.only!r}")
        return EXIT_OK if cases else EXIT_USAGE
    kind = disk.file_system(options.work)
    if kind in disk.MEMORY_FILE_SYSTEMS:
        print(f"bench/run: the data directory is on {kind}, where an fsync costs nothing; "
              "choose a directory on a disk with --work DIR", file=sys.stderr)
        return EXIT_USAGE
    options.work.mkdir(parents=True, exist_ok=True)
    # A stop from outside unwinds like Ctrl-C, so that every process that was started is stopped. Both are set, because
    # a shell may have started us in the background with SIGINT ignored.
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    try:
        with open(options.work / "lock", "w") as lock:
            return _locked_run(lock, options, cases)
    except KeyboardInterrupt:
        say("interrupted; everything that was started has been stopped, nothing was written")
        return EXIT_INTERRUPTED


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _locked_run(lock, options: argparse.Namespace, cases: list) -> int:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("bench/run: another benchmark runs in this directory", file=sys.stderr)
        return EXIT_USAGE
    _raise_open_files()
    settings, work = settings_of(options), options.work.resolve()
    needs = {name for case in cases for name in case.needs}
    tools = install.prepare(work, needs, not options.no_install, options.kvern)
    for leftover in ("run", "failed", "filled"):
        shutil.rmtree(work / leftover, ignore_errors=True)
    try:
        report = run_rounds(Bench(settings, work, tools), cases)
    finally:
        forget_filled(work)
    whole = settings.form == "full" and not options.only and settings.rounds >= FULL.rounds
    target = PUBLISHED if whole else work / "report"
    report.write(target)
    print(report.figures())
    say(f"written: {'docs/benchmarks' if whole else target}/latest.md and latest.json")
    return _exit_status(report, options.strict)


def run_rounds(bench: Bench, cases: list) -> Report:
    """Round 1 of every case, then round 2 and so on: a slow minute of the machine does not hit one system alone."""
    results, probes = Results(), []
    for number in range(1, bench.settings.rounds + 1):
        probes.append(disk.fsync_times_ms(bench.work))
        for case in cases:
            results.add(run_case(bench, case, number))
    probes.append(disk.fsync_times_ms(bench.work))
    return Report(bench.settings, cases, results, machine.describe(bench.work, bench.settings.wrk_threads),
                  [disk.percentile(probe, 0.50) for probe in probes], [disk.percentile(probe, 0.99) for probe in probes])


def run_case(bench: Bench, case: Case, number: int) -> Outcome:
    reason = bench.tools.reason(case.needs)
    if reason:
        return _told(Outcome(case.key, number, NOT_RUN, reason))
    try:
        waited = disk.wait_until_calm(bench.work)
        if waited > TOLD_SECONDS:
            say(f"waited {waited:.0f} s for the disk to be done with the case before")
        with bench.private_directory(case.key):
            return _told(Outcome(case.key, number, OK, values=case.run(bench)))
    except Exception as failure:  # noqa: BLE001 - whatever went wrong, the other cases still run and the report says it
        text = str(failure) or type(failure).__name__
        return _told(Outcome(case.key, number, FAILED, text))


def _told(outcome: Outcome) -> Outcome:
    shown = ("rate", "p50_ms", "p99_ms", "fsyncs_per_job", "device_bytes_per_job", "resident_bytes")
    values = ", ".join(f"{name} {outcome.values[name]:,.2f}" for name in shown if outcome.values.get(name) is not None)
    say(f"round {outcome.round} {outcome.case}: {outcome.status} {values or outcome.reason}")
    return outcome


def _raise_open_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _exit_status(report: Report, strict: bool) -> int:
    for verdict in report.broken_promises:
        say(f"BROKEN PROMISE: {verdict.name}: {verdict.measured}, {verdict.bar}")
    failed = [outcome for outcome in report.results.outcomes if outcome.status == FAILED]
    for outcome in failed:
        say(f"FAILED: {outcome.case}, round {outcome.round}: {outcome.reason}")
    return EXIT_BROKEN if report.broken_promises or failed or (strict and report.missed) else EXIT_OK
