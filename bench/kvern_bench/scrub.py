"""Takes out of a report what it must not say: names, paths and foreign addresses of the machine that made it."""
from __future__ import annotations

import re
import socket
from pathlib import Path

from .install import REPOSITORY

FOREIGN_ADDRESS = re.compile(r"\b[a-z]+://(?!127\.0\.0\.1|localhost)[^\s\"'<>)\\]+")
ABSOLUTE_PATH = re.compile(r"(?<![\w./:-])/(?:[\w.@+-]+/)+[\w.@+-]*")
# Interfaces of Kvern and Linux that look like a path and say nothing about this machine.
PUBLIC = ("/v1/", "/proc/")
# Shorter names ("vm", "dev") are parts of ordinary words.
HOST_NAME_LENGTH_MIN = 4


def scrub(text: str) -> str:
    text = text.replace(str(REPOSITORY) + "/", "").replace(str(Path.home()) + "/", "~/")
    text = FOREIGN_ADDRESS.sub("<address>", text)
    text = ABSOLUTE_PATH.sub(lambda match: match[0] if match[0].startswith(PUBLIC) else "<path>", text)
    name = socket.gethostname()
    if len(name) >= HOST_NAME_LENGTH_MIN:
        text = re.sub(rf"\b{re.escape(name)}\b", "<host>", text)
    return text
