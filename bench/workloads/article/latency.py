"""`delay().get()` one after the other on an idle worker: `latency.py SAMPLES`; prints the times in ms as JSON."""
import json
import sys
import time

from tasks import noop

WARM_UP = 20


def main():
    samples = int(sys.argv[1])
    body = json.loads(sys.stdin.read())
    times = []
    for number in range(WARM_UP + samples):
        start = time.perf_counter()
        value = noop.delay(body).get(timeout=30)
        times.append((time.perf_counter() - start) * 1000)
        assert value == body["n"], f"task {number} returned {value!r}"
    print(json.dumps(times[WARM_UP:]))


if __name__ == "__main__":
    main()
