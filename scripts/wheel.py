#!/usr/bin/env python3
"""Writes a wheel that carries one static binary (PyPA: binary distribution format).

Arguments: the binary, the version, the machine (x86_64), the time of the commit in Unix seconds, the folder to write to.
The same arguments give the same bytes.
"""

import base64
import hashlib
import sys
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LICENCES = ("LICENSE-APACHE", "LICENSE-MIT")
# A static binary needs no C library at all, so it keeps what each of these asks for: the glibc of 2014, and musl.
PLATFORMS = ("manylinux_2_17", "manylinux2014", "musllinux_1_1")

METADATA = """\
Metadata-Version: 2.4
Name: kvern
Version: {version}
Summary: A private serverless platform in one binary: durable jobs over HTTP, run by your own functions.
License-Expression: MIT OR Apache-2.0
{licences}
Classifier: Operating System :: POSIX :: Linux
Requires-Python: >=3.7
Description-Content-Type: text/markdown

{readme}"""

WHEEL = """\
Wheel-Version: 1.0
Generator: kvern scripts/wheel.py
Root-Is-Purelib: false
{tags}
"""


def main():
    binary, version, machine, epoch, folder = sys.argv[1:]
    platforms = [f"{platform}_{machine}" for platform in PLATFORMS]
    path = Path(folder) / f"kvern-{version}-py3-none-{'.'.join(platforms)}.whl"
    files = contents(Path(binary), version, platforms)
    with zipfile.ZipFile(path, "w") as wheel:
        for name, data, mode in files:
            entry = zipfile.ZipInfo(name, time.gmtime(int(epoch))[:6])
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o100000 | mode) << 16
            wheel.writestr(entry, data)
    print(path)


def contents(binary, version, platforms):
    """Every file as name, bytes and mode; the record of them comes last, as the format asks."""
    info = f"kvern-{version}.dist-info"
    metadata = METADATA.format(
        version=version,
        licences="\n".join(f"License-File: {name}" for name in LICENCES),
        readme=(ROOT / "README.md").read_text(encoding="utf-8"),
    )
    tags = WHEEL.format(tags="\n".join(f"Tag: py3-none-{platform}" for platform in platforms))
    files = [
        (f"kvern-{version}.data/scripts/kvern", binary.read_bytes(), 0o755),
        *((f"{info}/licenses/{name}", (ROOT / name).read_bytes(), 0o644) for name in LICENCES),
        (f"{info}/METADATA", metadata.encode(), 0o644),
        (f"{info}/WHEEL", tags.encode(), 0o644),
    ]
    record = [f"{name},sha256={digest(data)},{len(data)}" for name, data, _ in files] + [f"{info}/RECORD,,"]
    return [*files, (f"{info}/RECORD", ("\n".join(record) + "\n").encode(), 0o644)]


def digest(data):
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


if __name__ == "__main__":
    main()
