#!/usr/bin/env python3
"""Writes a wheel that carries one static binary (PyPA: binary distribution format).

Arguments: the binary, the version, the machine (x86_64), the time of the commit in Unix seconds, the folder to write to.
"""

import base64
import hashlib
import sys
import time
import zipfile
from pathlib import Path

METADATA = """\
Metadata-Version: 2.1
Name: kvern
Version: {version}
Summary: A private serverless platform in one binary: durable jobs over HTTP, run by your own functions.
License: MIT OR Apache-2.0
Requires-Python: >=3.8
Description-Content-Type: text/markdown

{readme}
"""

WHEEL = """\
Wheel-Version: 1.0
Generator: kvern scripts/wheel.py
Root-Is-Purelib: false
Tag: {tag}
"""


def main():
    binary, version, machine, epoch, folder = sys.argv[1:]
    # A static binary needs no C library, so the oldest tag that pip knows is true.
    tag = f"py3-none-manylinux_2_17_{machine}.manylinux2014_{machine}"
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    info = f"kvern-{version}.dist-info"
    tags = "\n".join(f"Tag: py3-none-{t}" for t in (f"manylinux_2_17_{machine}", f"manylinux2014_{machine}"))
    files = [
        (f"kvern-{version}.data/scripts/kvern", Path(binary).read_bytes(), 0o755),
        (f"{info}/METADATA", METADATA.format(version=version, readme=readme).encode(), 0o644),
        (f"{info}/WHEEL", WHEEL.format(tag=tags.removeprefix("Tag: ")).encode(), 0o644),
    ]
    record = [f"{name},sha256={digest(data)},{len(data)}" for name, data, _ in files] + [f"{info}/RECORD,,"]
    files.append((f"{info}/RECORD", ("\n".join(record) + "\n").encode(), 0o644))
    path = Path(folder) / f"kvern-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data, mode in files:
            entry = zipfile.ZipInfo(name, time.gmtime(int(epoch))[:6])
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o100000 | mode) << 16
            wheel.writestr(entry, data)
    print(path)


def digest(data):
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


if __name__ == "__main__":
    main()
