"""What C2PA signatures cost in each container, and which damage they show.

python -m sglat_lab.bench.signing OUT.json
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

import av
import numpy as np

from sglat.marks import c2pa, keys
from sglat.marks.c2pa import Claim, read_manifest, sign_media
from sglat.marks.embedded import read_embedded
from sglat.media.pictures import encode_png, generated_marks
from sglat.media.writer import VideoWriter
from sglat_lab.report.pages import provenance, write_page

NAMES: Final = ("a.mp4", "fragmented.mp4", "a.mov", "a.avi", "a.gif", "a.apng", "a.png")
SIZE: Final = 256
FRAMES: Final = 50
ROUNDS: Final = 20
FLIPS: Final = 200
MUTANTS: Final = 300
MANIFEST_BYTES: Final = 2500  # of the store before its padding


def make(path: Path) -> None:
    """Write a video or picture with tags, as `sgl-decode` does."""
    chance = np.random.default_rng(0)
    base = chance.integers(0, 256, (8, 8, 3)).repeat(SIZE // 8, 0).repeat(SIZE // 8, 1)
    pictures = [np.roll(base, 2 * at, 1).astype(np.uint8) for at in range(FRAMES)]
    marks = generated_marks(generated_by="sglat")
    if path.suffix == ".png":
        path.write_bytes(encode_png(pictures[0], marks=marks))
    elif path.stem == "fragmented":
        options = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
        with av.open(str(path), "w", container_options=options) as container:
            stream: Any = container.add_stream("libx264", rate=25, options={"g": "10"})
            stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "yuv420p"
            for picture in pictures:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
    else:
        size = SIZE, SIZE
        with VideoWriter(path, size=size, time_base=Fraction(1, 25), metadata=marks) as writer:
            for at, picture in enumerate(pictures):
                writer.write(picture, at, duration=1)


def measure(folder: Path, name: str, signer: keys.Signer) -> dict[str, Any]:
    """Return cost and findings of one container."""
    path = folder / name
    make(path)
    plain, seconds = path.read_bytes(), []
    claim = Claim(title=name, generated_by="sglat", facts={"consent": "given for tests"})
    for _ in range(ROUNDS):
        path.write_bytes(plain)
        started = time.process_time()
        sign_media(path, claim, signer)
        seconds.append(time.process_time() - started)
    data = path.read_bytes()
    whole = read(path, data)
    chance = random.Random(1)
    start = data.find(b"jumb") - 4
    store = len(read_embedded(path).store)
    # A BMFF hash leaves out the file type box at the front, a few bytes that name the brand.
    outside = [at for at in range(64, len(data) - 16) if not start - 64 <= at < start + store + 64]
    flips = [read(path, flipped(data, chance.choice(outside), chance)) for _ in range(FLIPS)]
    mutants = [read(path, mutant(data, start, chance)) for _ in range(MUTANTS)]
    return {
        "is_valid": whole.state == "valid",
        "file_bytes": len(plain),
        "added_bytes": len(data) - len(plain),
        "median_processor_milliseconds": round(1000 * median(seconds), 2),
        "flips": FLIPS,
        "flips_found": sum(found.state == "broken" for found in flips),
        "damaged_manifests": MUTANTS,
        "damaged_manifests_refused": sum(found.state in ("broken", "none") for found in mutants),
        "damaged_manifests_that_say_the_same": sum(found == whole for found in mutants),
        "damaged_manifests_that_say_something_else": sum(
            found.state not in ("broken", "none") and found != whole for found in mutants
        ),
    }


def read(path: Path, data: bytes) -> c2pa.Manifest:
    """Return what a changed file is read as."""
    path.write_bytes(data)
    embedded = read_embedded(path)
    found = read_manifest(path, embedded)
    if found.state == "none" and embedded.damage:
        return replace(found, state="broken")  # a box or chunk that leads out of the file
    return found


def flipped(data: bytes, place: int, chance: random.Random) -> bytes:
    """Return a file with one bit changed."""
    changed = bytearray(data)
    changed[place] ^= 1 << chance.randrange(8)
    return bytes(changed)


def mutant(data: bytes, start: int, chance: random.Random) -> bytes:
    """Return a file with bytes of its manifest changed, removed or repeated."""
    place, count = start + chance.randrange(MANIFEST_BYTES), chance.randrange(1, 400)
    kind = chance.randrange(3)
    if kind == 0:
        changed = bytearray(data)
        for _ in range(chance.choice((1, 3, 30))):
            changed[start + chance.randrange(MANIFEST_BYTES)] = chance.choice((0, 127, 255))
        return bytes(changed)
    if kind == 1:
        return data[:place] + data[place + count :]
    return data[:place] + data[place : place + count] * chance.randrange(1, 20) + data[place:]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all containers and write a record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="JSON file to write")
    out = parser.parse_args(arguments).out
    with TemporaryDirectory() as name:
        signer = keys.make_signer("Bench", folder=Path(name) / "keys")
        figures = {each: measure(Path(name), each, signer) for each in NAMES}
    record = {
        "containers": figures,
        "runs": [
            provenance(
                "python -m sglat_lab.bench.signing", library=c2pa.load_library().sdk_version()
            )
        ],
    }
    write_page(out, record)


if __name__ == "__main__":
    main()
