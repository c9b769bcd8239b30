"""Coverage-guided fuzzing of everything that reads a `.sglat` file.

    python tests/fuzz/fuzz_reader.py tests/fuzz/corpus format_spec/vectors/valid -max_len=1536

Needs atheris (`pip install atheris`). Every input must end in a clean read or in an `SglatError`;
any other exception, a hang or a memory blow-up is a finding. Bytes are mutated by libFuzzer and
then, most of the time, put in order again: chunk checksums are made right, so that the mutation
reaches what lies behind them.

`SGLAT_FUZZ_DIFFERENTIAL=1` also asks the reference decoder, which must agree on good or bad and on
every integer.
"""

from __future__ import annotations

import io
import os
import random
import struct
import sys
from contextlib import nullcontext
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "codec"), str(ROOT / "format_spec")]

try:
    import atheris
except ImportError:  # the corpus can be replayed without it
    atheris = None
IS_MAIN = __name__ == "__main__" and atheris is not None

with atheris.instrument_imports(include=["sglat"]) if IS_MAIN else nullcontext():
    from sglat.bitstream import edits
    from sglat.bitstream.chunks import crc32c
    from sglat.bitstream.reader import Reader
    from sglat.bitstream.seek import SeekableFile
    from sglat.errors import SglatError

import reference_decoder  # noqa: E402

IS_DIFFERENTIAL = os.environ.get("SGLAT_FUZZ_DIFFERENTIAL") == "1"
SIDE_BY_SIDE = 8  # from so many groups on the codec decodes them together
SIGNATURE_BYTES = 8
CHUNK_HEAD_BYTES = 8
TYPES = [kind for kind in reference_decoder.CHUNKS if kind not in (b"HEAD", b"ENDS")]


class ShortReads(io.BytesIO):
    """A pipe that gives a few bytes at a time."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(7, size) if size is not None and size > 0 else size)


def read_codec(data: bytes) -> list[list[int]] | None:
    """Return the codec's integers, or None if it refuses the file."""
    try:
        reader = Reader(io.BytesIO(data))
        return [row for group in reader.groups() for row in group.motion.values.tolist()]
    except SglatError:
        return None


def check(data: bytes) -> None:
    """Read one input front to back, and each fourth one in every other way too."""
    frames = read_codec(data)
    if IS_DIFFERENTIAL:
        compare(data, frames)
    if sum(data[-4:]) % 4 == 0:  # by content, so that a finding stays one when it is run again
        check_other_ways(data, frames)


def check_other_ways(data: bytes, frames: list[list[int]] | None) -> None:
    """Read group by group from a trickling pipe, side by side, and by random access."""
    if frames is not None or data.count(b"MOTN") >= SIDE_BY_SIDE:
        check_side_by_side(data, frames)
    try:
        found = sum(len(group.motion.values) for group in Reader(ShortReads(data)).groups())
        if frames is not None and found != len(frames):
            raise AssertionError("a pipe loses frames of a sound file")
    except SglatError:
        if frames is not None:
            raise AssertionError("a sound file is refused from a pipe") from None
    if frames is not None:
        check_edits(data, frames)
    try:
        seekable = SeekableFile(io.BytesIO(data))
        for entry in seekable.index[:3]:
            seekable.group_at_frame(entry.first_frame)
    except SglatError:
        pass


def check_edits(data: bytes, frames: list[list[int]]) -> None:
    """Edit a sound file; the result must be sound and hold the same motion."""
    for edit in (edits.rewrite, edits.strip):
        out = io.BytesIO()
        edit(io.BytesIO(data), out)
        if read_codec(out.getvalue()) != frames:
            raise AssertionError(f"{edit.__name__} changes the motion")


def check_side_by_side(data: bytes, frames: list[list[int]] | None) -> None:
    """Decode all groups together, which is other code; the result must be the same."""
    try:
        groups = Reader(io.BytesIO(data)).read_all()
    except SglatError:
        if frames is not None:
            raise AssertionError("groups side by side are refused") from None
        return
    if [row for group in groups for row in group.motion.values.tolist()] != frames:
        raise AssertionError("groups side by side give other integers")


def compare(data: bytes, frames: list[list[int]] | None) -> None:
    """Hold the reference decoder against the codec."""
    try:
        expected = reference_decoder.decode(data).motion.tolist()
    except reference_decoder.SglatError as error:
        if frames is not None:
            raise AssertionError(f"only the reference refuses: {error}") from None
        return
    if frames != expected:
        raise AssertionError(f"codec {'refuses' if frames is None else 'reads other integers'}")


def mend(data: bytes) -> bytes:
    """Return the same chunks with right checksums, as far as lengths can be followed."""
    out = bytearray(data)
    out[:SIGNATURE_BYTES] = reference_decoder.SIGNATURE
    at = SIGNATURE_BYTES
    while at + CHUNK_HEAD_BYTES + 4 <= len(out):
        end = at + CHUNK_HEAD_BYTES + int.from_bytes(out[at + 5 : at + 8], "little")
        if end + 4 > len(out):
            break
        struct.pack_into("<I", out, end, crc32c(bytes(out[at:end])))
        at = end + 4
    return bytes(out)


def payloads(data: bytes) -> list[tuple[int, int]]:
    """Return start and end of each chunk that fits."""
    found, at = [], SIGNATURE_BYTES
    while at + CHUNK_HEAD_BYTES + 4 <= len(data):
        end = at + CHUNK_HEAD_BYTES + int.from_bytes(data[at + 5 : at + 8], "little") + 4
        if end > len(data):
            break
        found.append((at, end))
        at = end
    return found


def mutate_payload(data: bytes, max_size: int, choice: random.Random) -> bytes:
    """Mutate the payload of one chunk and set its length right."""
    chunks = payloads(data)
    if not chunks:
        return bytes(atheris.Mutate(data, max_size))
    start, end = choice.choice(chunks)
    head, payload = data[start : start + 5], data[start + CHUNK_HEAD_BYTES : end - 4]
    room = max(1, max_size - (len(data) - len(payload)))
    payload = bytes(atheris.Mutate(payload, room))[:0xFFFFFF]
    chunk = head + len(payload).to_bytes(3, "little") + payload + bytes(4)
    return data[:start] + chunk + data[end:]


def shuffle_chunks(data: bytes, choice: random.Random) -> bytes:
    """Drop, double, move or retype one chunk."""
    chunks = [data[a:b] for a, b in payloads(data)]
    if not chunks:
        return data
    at = choice.randrange(len(chunks))
    action = choice.randrange(4)
    if action == 0:
        del chunks[at]
    elif action == 1:
        chunks.insert(choice.randrange(len(chunks) + 1), chunks[at])
    elif action == 2:
        chunks.insert(choice.randrange(len(chunks)), chunks.pop(at))
    else:
        kind = choice.choice(TYPES)
        flags = reference_decoder.CHUNKS[kind][0]
        chunks[at] = kind + bytes([flags]) + chunks[at][5:]
    return data[:SIGNATURE_BYTES] + b"".join(chunks)


def mutator(data: bytes, max_size: int, seed: int) -> bytes:
    """Mutate bytes, a payload or the order of chunks; mend checksums seven times in eight."""
    choice = random.Random(seed)
    kind = choice.randrange(8)
    if kind < 5:
        data = mutate_payload(data, max_size, choice)
    elif kind < 6:
        data = shuffle_chunks(data, choice)
    else:
        data = bytes(atheris.Mutate(data, max_size))
    return (mend(data) if choice.randrange(8) else data)[:max_size]


def main() -> None:
    """Run libFuzzer with the arguments of the command line."""
    atheris.Setup(sys.argv, check, custom_mutator=mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
