"""The no-op of the benchmark as a Python handler."""


def noop(event):
    """Returns one number of its input, so that a stored result can be compared with what was sent."""
    return event["n"]
