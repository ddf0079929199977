"""Kvern's shim: runs one Python function, one job after the other.

It is started by the server with the number of a private descriptor in KVERN_FD. The frames are described in
crates/runtime/src/process/frame.rs. Standard output and standard error are the job's log and never the protocol.
Python 3.9 and later, nothing but the standard library, and as few imports as possible: each costs start-up time. It is
one long file because it is started as one: nothing of ours shall be importable by the user's code.
"""

import os
import signal
import sys
from _thread import get_ident
from json import JSONDecodeError, JSONEncoder, loads
from struct import Struct
from time import time

PROTOCOL = 2
HELLO, JOB, READY, CANNOT_START, RESULT, FAILURE = 1, 2, 0x81, 0x82, 0x83, 0x84
FRAME_HEAD = Struct("<IB")
JOB_HEAD = Struct("<IBIIIQBBH")
RESULT_HEAD = Struct("<IBIHBH")
FAILURE_HEAD = Struct("<IBI")
READ_BYTES = 65536 + 4096
JSON_TYPE, TEXT_TYPE, BYTES_TYPE = "application/json", "text/plain; charset=utf-8", "application/octet-stream"
CONTEXT_NAMES = ("ctx", "context")

encode_json = JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class BadInput(Exception):
    """The input is not what the function takes."""


class BadResult(Exception):
    """The function returned what cannot be sent; said as a failure of the function."""


class TooLarge(Exception):
    """The result is larger than max_output."""


class NotStored(Exception):
    """The result could not be written down."""


class CannotStart(Exception):
    """There is no such function."""


OUR_CODES = {
    BadInput: "bad_input",
    BadResult: "exception",
    TooLarge: "result_too_large",
    NotStored: "result_not_stored",
    CannotStart: "cannot_start",
}


class Context:
    """What a job is told about itself, for a parameter named `ctx` or `context`."""

    __slots__ = ("job_id", "function", "attempt", "attempts_max", "deadline_ms", "content_type")

    def __init__(self, job_id, function, attempt, attempts_max, deadline_ms, content_type):
        self.job_id = job_id
        self.function = function
        self.attempt = attempt
        self.attempts_max = attempts_max
        self.deadline_ms = deadline_ms
        self.content_type = content_type

    @property
    def max_attempts(self):
        return self.attempts_max

    def remaining_ms(self):
        """Milliseconds until the attempt is stopped; never below 0."""
        return max(0, self.deadline_ms - int(time() * 1000))

    def __repr__(self):
        return "Context(%s)" % ", ".join("%s=%r" % (name, getattr(self, name)) for name in self.__slots__)


# === the channel ===


class Channel:
    """The private descriptor. A forked child loses it: only the process that got a job may answer it."""

    def __init__(self, fd):
        self.fd = fd
        os.set_inheritable(fd, False)
        os.register_at_fork(after_in_child=self.forget)

    def forget(self):
        os.close(self.fd)
        self.fd = None

    def read(self):
        data = os.read(self.fd, READ_BYTES)
        if not data:
            leave(0)
        while len(data) < 4:
            data += self.read_some(4)
        missing = FRAME_HEAD.unpack_from(data.ljust(5))[0] + 4 - len(data)
        if missing <= 0:
            return data
        parts = [data]
        while missing > 0:
            parts.append(self.read_some(missing))
            missing -= len(parts[-1])
        return b"".join(parts)

    def read_some(self, most):
        data = os.read(self.fd, min(most, 1 << 20))
        if not data:
            leave(0)
        return data

    def write(self, data):
        sent = os.write(self.fd, data)
        while sent < len(data):
            data = data[sent:]
            sent = os.write(self.fd, data)


def leave(code):
    """Ends the process without waiting for threads that the user's code may have left behind."""
    try:
        import atexit

        atexit._run_exitfuncs()
    finally:
        flush()
        os._exit(code)


def exit_code(error):
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def flush():
    for stream in (sys.stderr, sys.stdout):
        try:
            stream.flush()
        except Exception:  # The user's code may have closed or replaced it.
            pass


# === loading ===


def load(hello):
    """Imports the user's file and finds the function in it."""
    path = hello["file"]
    folder = os.path.dirname(path)
    sys.argv = [path]
    sys.path[0] = folder  # In place of the shim's own folder.
    if hello["packages"]:
        import site

        before = set(sys.path)
        site.addsitedir(hello["packages"])
        added = [entry for entry in sys.path if entry not in before]
        sys.path[:] = [folder] + added + [entry for entry in sys.path[1:] if entry in before]
    if not os.path.isfile(path):
        raise CannotStart("there is no file %s" % hello["file_shown"])
    return find(import_file(path), hello["entry"], hello["file_shown"])


def import_file(path):
    from importlib.util import module_from_spec, spec_from_file_location

    name = os.path.splitext(os.path.basename(path))[0]
    if name in sys.modules or name in sys.builtin_module_names or name in getattr(sys, "stdlib_module_names", ()):
        name = "kvern_handler_" + name  # A handler in json.py must not stand in for the json that we and others use.
    spec = spec_from_file_location(name, path)
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses, pickle and multiprocessing look it up there.
    spec.loader.exec_module(module)
    return module


def find(module, entry, shown):
    public = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and callable(value)
        and not isinstance(value, type)
        and getattr(value, "__module__", None) == module.__name__
    ]
    listed = ", ".join("`%s`" % name for name in public) or "no function"
    if entry is None:
        if callable(getattr(module, "handler", None)):
            entry = "handler"
        elif len(public) == 1:
            entry = public[0]
        elif public:
            raise CannotStart(
                "%s has several functions and none named `handler`: write `handler = \"%s:NAME\"` with one of %s"
                % (shown, shown, listed)
            )
        else:
            raise CannotStart("%s has no function: define `def handler(event)` in it" % shown)
    function = getattr(module, entry, None)
    if function is None:
        from difflib import get_close_matches

        close = get_close_matches(entry, public, 1)
        hint = "; did you mean `%s`?" % close[0] if close else ""
        raise CannotStart("%s has no function `%s`; it has: %s%s" % (shown, entry, listed, hint))
    if not callable(function):
        raise CannotStart("`%s` in %s is not a function; it has: %s" % (entry, shown, listed))
    return function


class Parameters:
    """What the function takes, so that a wrong input is told from a TypeError inside of the function."""

    def __init__(self, function):
        self.function = function
        self.wants_context = None
        self.takes_event = False
        self.allowed = frozenset()
        self.required = frozenset()
        self.takes_any = self.is_unknown = False
        self.positional = 0
        self.positional_only = ()
        self.context_first = False
        try:
            self.read()
        except (TypeError, ValueError):  # A function of an extension module without a signature.
            self.is_unknown = self.takes_any = True
            self.positional = 1

    def read(self):
        code = getattr(self.function, "__code__", None)
        if code is not None and not hasattr(self.function, "__wrapped__") and not code.co_posonlyargcount:
            # A plain function: no need to import `inspect`, which costs as much as all the rest.
            positional = list(code.co_varnames[: code.co_argcount])
            if hasattr(self.function, "__self__"):
                del positional[0]
            only_named = list(code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount])
            defaults = self.function.__defaults__ or ()
            optional = set(positional[len(positional) - len(defaults) :]) | set(self.function.__kwdefaults__ or ())
            has_args, self.takes_any = bool(code.co_flags & 4), bool(code.co_flags & 8)
        else:
            positional, only_named, optional, has_args = self.inspect()
        names = positional + only_named
        self.wants_context = next((name for name in CONTEXT_NAMES if name in names), None)
        self.context_first = positional[:1] == [self.wants_context]
        inputs = [name for name in names if name != self.wants_context]
        self.takes_event = inputs == ["event"] and not self.takes_any
        self.allowed = frozenset(inputs)
        self.required = self.allowed - optional
        places = [name for name in positional if name != self.wants_context]
        self.positional = 1 if places or has_args else 0
        others = [name for name in self.required if not places or name != places[0]]
        if others:
            self.positional = 0

    def inspect(self):
        from inspect import signature

        positional, only_named, optional, has_args, no_names = [], [], set(), False, []
        for parameter in signature(self.function).parameters.values():
            if parameter.kind == parameter.VAR_POSITIONAL:
                has_args = True
            elif parameter.kind == parameter.VAR_KEYWORD:
                self.takes_any = True
            else:
                (only_named if parameter.kind == parameter.KEYWORD_ONLY else positional).append(parameter.name)
                if parameter.kind == parameter.POSITIONAL_ONLY:
                    no_names.append(parameter.name)
                if parameter.default is not parameter.empty:
                    optional.add(parameter.name)
        self.positional_only = tuple(no_names)
        return positional, only_named, optional, has_args

    def shown(self):
        name = getattr(self.function, "__name__", "the function")
        try:
            from inspect import signature

            return name + str(signature(self.function))
        except (TypeError, ValueError):
            return name

    def misfit(self, given):
        unexpected = [] if self.takes_any else sorted(given - self.allowed)
        missing = sorted(self.required - given)
        parts = []
        if unexpected:
            parts.append("does not take " + ", ".join("`%s`" % name for name in unexpected))
        if missing:
            parts.append("needs " + ", ".join("`%s`" % name for name in missing))
        return BadInput("%s %s%s" % (self.shown(), " and ".join(parts), self.meant(given, unexpected, missing)))

    def meant(self, given, unexpected, missing):
        from difflib import get_close_matches

        if self.wants_context is None:
            for name in missing:
                # A slip in the name makes an argument of it, which no input has.
                for close in get_close_matches(name, CONTEXT_NAMES, 1):
                    return "; did you mean `%s` by `%s`?" % (close, name)
        free = sorted(self.allowed - given)
        for name in unexpected:
            for close in get_close_matches(name, free, 1):
                return "; did you mean `%s`?" % close
        return ""


# === one job ===


def is_json(content_type, body):
    if not content_type or content_type == JSON_TYPE:
        return True
    kind = content_type.split(";", 1)[0].strip().lower()
    if kind == "application/x-www-form-urlencoded":
        # What `curl -d '{...}'` says of everything; no form begins so.
        return bytes(body[:1]) in (b"{", b"[")
    return kind == JSON_TYPE or (kind.startswith("application/") and kind.endswith("+json"))


def parse(body):
    try:
        return loads(str(body, "utf-8"))
    except JSONDecodeError as error:
        raise BadInput(
            "the input is not JSON: %s at line %d, column %d" % (error.msg, error.lineno, error.colno)
        ) from None
    except UnicodeDecodeError as error:
        raise BadInput("the input is not JSON: it is not UTF-8 at byte %d" % error.start) from None
    except RecursionError:
        raise BadInput("the input is not JSON that can be read: it is nested too deeply") from None


def call(function, parameters, content_type, body, context):
    """Gives the input to the function in the form that it takes."""
    extra = {parameters.wants_context: context} if context is not None else {}
    is_document = is_json(content_type, body)
    if not body and (is_document or not parameters.positional):
        if parameters.required and not parameters.takes_event:
            raise parameters.misfit(frozenset())
        return function(None, **extra) if parameters.takes_event else function(**extra)
    if is_document:
        value = parse(body)
        if type(value) is dict and not parameters.takes_event and not parameters.is_unknown:
            given = frozenset(value)
            if not parameters.required <= given or not (parameters.takes_any or given <= parameters.allowed):
                raise parameters.misfit(given)
            if parameters.wants_context in given:
                raise BadInput("`%s` is filled by Kvern: the input cannot hold it" % parameters.wants_context)
            if parameters.positional_only:
                first = [value.pop(name) for name in parameters.positional_only if name in value]
                return function(*first, **value, **extra)
            return function(**value, **extra) if extra else function(**value)
        what = "an input that is no JSON object"
    else:
        value = body
        what = "an input of type %s, which comes as bytes (send JSON with `Content-Type: application/json`)" % content_type
    if not parameters.positional:
        raise BadInput("%s cannot take %s as its one argument" % (parameters.shown(), what))
    if parameters.context_first:
        return function(context, value)
    return function(value, **extra)


class Awaiter:
    """One event loop for the life of the instance, so that a client made for it can be kept between jobs."""

    def __init__(self):
        self.loop = None

    def wait(self, awaitable):
        import asyncio

        if self.loop is None:
            self.loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self.loop)
        try:
            return self.loop.run_until_complete(await_it(awaitable))
        finally:
            # Attempts are apart: what this one left running must not wake up in the next.
            left = asyncio.all_tasks(self.loop)
            for task in left:
                task.cancel()
            if left:
                self.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))


async def await_it(awaitable):
    return await awaitable


def encode(value):
    """Body and content type of what the function returned."""
    kind = type(value)
    if kind is dict or value is None:
        return json_of(value), JSON_TYPE
    if kind is tuple and len(value) == 2 and is_content_type(value[1]):
        body, content_type = value
        if isinstance(body, str):
            return body.encode("utf-8"), content_type
        if isinstance(body, (bytes, bytearray, memoryview)):
            return bytes(body), content_type
        return json_of(body), content_type
    if isinstance(value, str):
        return value.encode("utf-8"), TEXT_TYPE
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value), BYTES_TYPE
    return json_of(value), JSON_TYPE


def is_content_type(value):
    return isinstance(value, str) and 2 < len(value) < 256 and "/" in value[1:-1] and value.isascii() and value.isprintable()


def json_of(value):
    try:
        return encode_json(value).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise BadResult(
            "the function returned a %s that is not JSON: %s. Return a dict, list, str, number, bool, None, bytes, "
            "or a tuple (body, content type)" % (type(value).__name__, error)
        ) from None


class Worker:
    def __init__(self, hello, channel, function):
        self.hello = hello
        self.channel = channel
        self.function = function
        self.parameters = Parameters(function)
        self.awaiter = Awaiter()
        self.name = hello["function"]
        self.result_path = os.path.join(hello["scratch"], "result")
        self.shown = {}

    def show(self, name, value):
        """Sets a variable of the environment, if it is not so already: that is a system call's worth of time each."""
        if self.shown.get(name, "") == value:
            return
        self.shown[name] = value
        if value:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)

    def serve(self):
        while True:
            frame = self.channel.read()
            number = JOB_HEAD.unpack_from(frame)[2]
            try:
                answer = self.answer(frame)
            except SystemExit:
                raise
            except BaseException as error:
                answer = self.failure(number, error)
            if self.channel.fd is None:  # A forked child that came out of the function: its parent answers.
                leave(0)
            flush()
            self.channel.write(answer)

    def answer(self, frame):
        _, _, number, attempt, attempts_max, deadline, where, id_len, type_len = JOB_HEAD.unpack_from(frame)
        type_at = JOB_HEAD.size + id_len
        body_at = type_at + type_len
        job_id = str(frame[JOB_HEAD.size : type_at], "ascii")
        content_type = str(frame[type_at:body_at], "utf-8", "replace")
        body = frame[body_at:]
        if where:
            with open(body, "rb") as file:
                body = file.read()
        self.show("KVERN_JOB_ID", job_id)
        self.show("KVERN_ATTEMPT", str(attempt))
        self.show("KVERN_ATTEMPTS_MAX", str(attempts_max))
        self.show("KVERN_DEADLINE_MS", str(deadline))
        self.show("KVERN_CONTENT_TYPE", content_type)
        context = None
        if self.parameters.wants_context:
            context = Context(job_id or None, self.name, attempt, attempts_max, deadline, content_type or None)
        value = call(self.function, self.parameters, content_type, body, context)
        if hasattr(value, "__await__"):
            value = self.awaiter.wait(value)
        body, content_type = encode(value)
        return self.result(number, body, content_type.encode("ascii"))

    def result(self, number, body, content_type):
        if len(body) > self.hello["max_output"]:
            raise TooLarge
        where = 0
        if len(body) > self.hello["inline_max"]:
            if self.channel.fd is not None:
                self.write_down(body)
            where, body = 1, b""
        length = RESULT_HEAD.size - 4 + len(content_type) + len(body)
        return RESULT_HEAD.pack(length, RESULT, number, 0, where, len(content_type)) + content_type + body

    def write_down(self, body):
        try:
            with open(self.result_path, "wb") as file:
                file.write(body)
        except OSError as error:
            if os.path.exists(self.result_path):
                open(self.result_path, "wb").close()  # Half of it would take the room that is missing.
            raise NotStored("the function ran, but its result could not be written to TMPDIR: %s" % error) from error

    def failure(self, number, error):
        data = describe(error, self.hello)
        return FAILURE_HEAD.pack(FAILURE_HEAD.size - 4 + len(data), FAILURE, number) + data


# === failures ===


def describe(error, hello):
    """A failure as JSON. Nothing in here may fail, whatever the exception is made of."""
    code = OUR_CODES.get(type(error))
    if code is not None:
        kind = "TypeError" if type(error) is BadResult else None
        return plain({"code": code, "class": kind, "message": str(error)})
    names = [kind.__name__ for kind in type(error).__mro__]
    failing = {"code": "exception", "class": type(error).__name__, "message": text_of(error)}
    if "Permanent" in names:
        failing["code"] = "permanent"
    elif "Retry" in names:
        failing["code"] = "retry"
        failing["retry_after_ms"] = retry_after_ms(error)
    try:
        failing["trace"] = trace_of(error, hello)
    except Exception:
        pass
    for key in ("message", "trace"):
        if key in failing:
            failing[key] = as_the_user_knows_it(failing[key], hello)
    return plain(failing)


def text_of(error):
    try:
        return str(error)
    except Exception:
        return "(its message cannot be read)"


def retry_after_ms(error):
    after = getattr(error, "after", None)
    if after is None:
        after = next((a for a in getattr(error, "args", ()) if isinstance(a, (int, float)) and a is not True), None)
    if hasattr(after, "total_seconds"):
        after = after.total_seconds()
    if isinstance(after, (int, float)) and 0 <= after < 1e9:
        return int(after * 1000)
    return None


def trace_of(error, hello):
    """The traceback without our frames and the import system's, with causes."""
    from traceback import TracebackException

    trace = TracebackException.from_exception(error)
    seen, left = set(), [trace]
    while left:
        part = left.pop()
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        left += [part.__cause__, part.__context__] + list(getattr(part, "exceptions", None) or ())
        part.stack[:] = [f for f in part.stack if f.filename != __file__ and not f.filename.startswith("<frozen")]
    lines = "".join(trace.format())
    return lines.replace("Traceback (most recent call last):\n", "", 1) if not trace.stack else lines


def as_the_user_knows_it(text, hello):
    return text.replace(hello["code"], hello["code_shown"])


def plain(failing):
    """JSON whose strings are cut where the server would, and hold no lone surrogates, which are not Unicode."""
    for key, most in (("message", 8192), ("trace", 20000), ("class", 200)):
        text = failing.get(key)
        if text is not None:
            text = text if len(text) <= most else (text[-most:] if key == "trace" else text[:most])
            failing[key] = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return JSONEncoder(ensure_ascii=False).encode(failing).encode("utf-8")


# === life ===


def terminate(*_):
    # In the main thread, so that `finally` and `with` of the user's code are carried out within the grace.
    raise SystemExit(143)


class Forks:
    """Gives a forked child the TERM of any process: to end, at once and always.

    Our handler is none for a child. Python runs it between two instructions, and one that is about to wait for a lock
    (as the workers of a `multiprocessing.Pool` do) waits on; and what it raises in a hook is lost. Who sends a TERM
    to a child waits for its end. So TERM is held back until the child has the default.
    """

    def __init__(self):
        self.masks = {}
        os.register_at_fork(before=self.before, after_in_parent=self.restore, after_in_child=self.in_child)

    def before(self):
        self.masks[get_ident()] = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))

    def in_child(self):
        if signal.getsignal(signal.SIGTERM) is terminate:  # The user's code may have set its own.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.restore()

    def restore(self):
        signal.pthread_sigmask(signal.SIG_SETMASK, self.masks.pop(get_ident()))


def main():
    channel = Channel(int(os.environ.pop("KVERN_FD")))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, terminate)
    Forks()
    for stream in (sys.stdout, sys.stderr):
        # Whole lines at once, and a character that cannot be written is no reason to fail.
        stream.reconfigure(line_buffering=True, errors="backslashreplace")
    hello = loads(channel.read()[FRAME_HEAD.size :])
    try:
        if hello["protocol"] != PROTOCOL:
            raise CannotStart("the shim speaks version %d of the protocol, the server %d" % (PROTOCOL, hello["protocol"]))
        if sys.version_info < (3, 9):
            raise CannotStart("Python 3.9 or later is needed; this is %s" % sys.version.split()[0])
        worker = Worker(hello, channel, load(hello))
    except SystemExit:
        raise
    except BaseException as error:
        flush()
        data = describe(error, hello)
        channel.write(FRAME_HEAD.pack(len(data) + 1, CANNOT_START) + data)
        leave(1)
    if channel.fd is None:
        leave(0)
    flush()
    data = b'{"protocol":%d}' % PROTOCOL
    channel.write(FRAME_HEAD.pack(len(data) + 1, READY) + data)
    worker.serve()


if __name__ == "__main__":
    try:
        main()
    except SystemExit as error:
        leave(exit_code(error))
    except BaseException:
        import traceback

        traceback.print_exc()
        leave(1)
