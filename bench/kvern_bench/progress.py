"""Progress for whoever waits: stderr only, so that stdout holds nothing but the table."""
from __future__ import annotations

import sys
import time

START = time.monotonic()


def say(text: str) -> None:
    print(f"[bench {time.monotonic() - START:6.1f} s] {text}", file=sys.stderr, flush=True)
