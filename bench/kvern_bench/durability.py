"""The check behind every 202: kill the server with -9 in the middle of a load, start it again, look for every job."""
from __future__ import annotations

import re

from .body import job_body
from .cases import Values
from .exchange import exchange, get_request
from .peers.kvern import KvernServer
from .service import BenchFailure

ID = re.compile(rb'"id"\s*:\s*"([^"]+)"')
LOOK_SECONDS_MAX = 120


def job_id(body: bytes) -> str:
    match = ID.search(body)
    if not match:
        raise BenchFailure(f"a 202 without an id: {body[:200]!r}")
    return match[1].decode()


def kill_and_look(server: KvernServer, ids_wanted: int, acknowledged_before: int) -> Values:
    """`acknowledged_before` jobs were accepted by the load before, whose ids nobody noted: those are only counted."""
    ids = _submit_until_killed(server, ids_wanted)
    server.start()
    found: list[int] = []

    def on_answer(index: int, status: int, body: bytes) -> None:
        if status == 200 and job_id(body) == ids[index]:
            found.append(index)

    exchange(server.port, (get_request(server.port, f"/v1/jobs/{name}") for name in ids), on_answer,
             seconds_max=LOOK_SECONDS_MAX)
    metrics = server.metrics()
    acknowledged = acknowledged_before + len(ids)
    return {"acknowledged_ids": float(len(ids)), "lost_ids": float(len(ids) - len(found)),
            "acknowledged": float(acknowledged), "lost": max(0.0, acknowledged - metrics.open_jobs - metrics.succeeded),
            "restart_ms": server.ready_seconds * 1000}


def _submit_until_killed(server: KvernServer, ids_wanted: int) -> list[str]:
    """Submits twice as many jobs as it takes, and kills the server in the middle. Returns what was acknowledged."""
    ids: list[str] = []

    def on_answer(_index: int, status: int, body: bytes) -> None:
        if status == 202:
            ids.append(job_id(body))
        if status == 202 and len(ids) == ids_wanted:
            server.kill_9()

    requests = (server.submit_request(job_body(number)) for number in range(2 * ids_wanted))
    outcome = exchange(server.port, requests, on_answer)
    if outcome.broken == 0:
        raise BenchFailure(f"the kill came too late: {outcome.answered} answers, {len(ids)} acknowledged")
    return ids
