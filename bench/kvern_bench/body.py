"""The one request body of the benchmark: a JSON object of exactly BODY_BYTES bytes that carries a number."""
from __future__ import annotations

import hashlib
import json

from .settings import BODY_BYTES


def job_body(number: int) -> bytes:
    """The body of job `number`: the no-op returns the number, so each stored result says which job it belongs to."""
    head = b'{"n":%d,"pad":"' % number
    return head + b"x" * (BODY_BYTES - len(head) - 2) + b'"}'


def digest(result: bytes) -> str:
    return hashlib.sha256(result).hexdigest()


def expected_digest(number: int) -> str:
    return digest(json.dumps(number).encode())
