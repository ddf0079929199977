"""Queues no-op tasks through Celery's own producer; one JSON body per line on stdin."""
import json
import sys

from tasks import app, noop


def main():
    with app.producer_or_acquire() as producer:
        for line in sys.stdin:
            noop.apply_async(args=[json.loads(line)], producer=producer)


if __name__ == "__main__":
    main()
