import os
import signal
import subprocess
import sys
import time


def echo(body, ctx):
    return body, ctx.content_type


def show(body):
    sys.stdout.write(body.decode())
    return body


def wait():
    print("waiting")
    time.sleep(1000)


def hang(body):
    wait()


def stubborn(body):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wait()


def children():
    subprocess.Popen(["sleep", "1000"])
    subprocess.Popen(["sleep", "1000"], start_new_session=True, close_fds=False)
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execvp("sleep", ["sleep", "1000"])
        os._exit(0)


def family(body):
    children()
    wait()


def parent(body):
    children()
    return "done"


def die(body):
    if os.fork() == 0:
        time.sleep(1000)
    print("dying")
    os.kill(os.getpid(), signal.SIGKILL)


def large(body):
    return b"x" * int(body)


def flood(body):
    left = int(body)
    while left > 0:
        sys.stdout.write("x" * min(left, 100000))
        left -= min(left, 100000)
    return "done"


def environment(body):
    return "\n".join("%s=%s" % pair for pair in os.environ.items())
