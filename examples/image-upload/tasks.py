"""Makes three thumbnails of a photograph: the article's `process_image_upload`, with the work done for real."""

import io
import os
import time
from pathlib import Path

from PIL import Image, UnidentifiedImageError

SIDES = (64, 256, 640)  # pixels of the longer side
DATA = Path("data")  # beside kvern.toml: the working directory of a function


class Permanent(Exception):
    """Kvern knows this name: the job fails at once, since another attempt would not help."""


def process_image_upload(event: bytes, ctx):
    """Takes the photograph's bytes; gives the paths, sizes and times of its thumbnails."""
    began = time.monotonic()
    photo = read(event)
    print(f"processing {photo.format} of {photo.width}x{photo.height}, {len(event)} bytes")
    # The job's id names the folder, so a second attempt writes the same files again instead of more of them.
    folder = DATA / (ctx.job_id or "call")
    folder.mkdir(parents=True, exist_ok=True)
    thumbnails = [thumbnail(photo, side, folder) for side in SIDES]
    return {"thumbnails": thumbnails, "took_ms": round((time.monotonic() - began) * 1000)}


def read(photo: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(photo))
        image.load()
        return image
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise Permanent(f"this is not a photograph that can be read: {error}") from None


def thumbnail(photo: Image.Image, side: int, folder: Path) -> dict:
    began = time.monotonic()
    image = photo.convert("RGB")
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    path = folder / f"thumbnail-{side}.jpg"
    # Written aside and moved into place: nobody ever sees half a thumbnail.
    unfinished = path.with_suffix(".part")
    image.save(unfinished, "JPEG", quality=85)
    os.replace(unfinished, path)
    took_ms = round((time.monotonic() - began) * 1000)
    print(f"wrote {path}")
    return {
        "path": str(path),
        "width": image.width,
        "height": image.height,
        "bytes": path.stat().st_size,
        "took_ms": took_ms,
    }
