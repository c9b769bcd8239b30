"""Coverage-guided fuzzing of the parsers behind the chunk frame, faster than whole files.

    python tests/fuzz/fuzz_payloads.py tests/fuzz/corpus_payloads -max_len=512

The first byte of an input chooses the parser, the rest is its payload. Each must return or raise an
`SglatError`; the two coders with a fast twin must agree with it. `--seeds FOLDER` writes the
payloads of the test vectors there.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "codec"), str(ROOT / "format_spec")]

try:
    import atheris
except ImportError:  # the corpus can be replayed without it
    atheris = None
IS_MAIN = __name__ == "__main__" and atheris is not None

with atheris.instrument_imports(include=["sglat"]) if IS_MAIN else nullcontext():
    from sglat.bitstream import (
        extras,
        groups,
        header,
        identity,
        integers,
        motion_batch,
        motion_coder,
        values,
    )
    from sglat.errors import SglatError

import reference_decoder  # noqa: E402
import vector_tools  # noqa: E402

LATENT_SHAPE = (2, 4)
MOST_INTEGERS = 100  # past the last change of rate; keeps an input under a millisecond
MOST_FRAMES = 4
TWIN_EVERY = 16  # by content, so that a finding stays one when it is run again
PLACED = {"placement": vector_tools.f32(1, 1, 1, 1), "source": [9, 9]}
CONSTANT = header.unpack_header(vector_tools.head(**PLACED))
VARIABLE = header.unpack_header(vector_tools.head(rate=[1, 1000, 0, 0]))
MODEL = motion_coder.default_model(34)


def read_group(payload: bytes, head: header.Header) -> None:
    """Read a MOTN payload of few frames."""
    found = groups.unpack_group_head(payload, head)
    if found.frame_count <= MOST_FRAMES:
        groups.unpack_motion(found, head)


def read_placement(payload: bytes) -> None:
    """Read a PLAC payload of few frames."""
    cursor = values.Cursor(payload, code="bad-placement")
    cursor.varint()
    if cursor.varint() <= 8 * MOST_FRAMES:
        groups.unpack_placement(payload, CONSTANT)


def compare_frames(data: bytes) -> None:
    """Decode the same group alone and, one time in sixteen, eight times side by side."""
    count = 1 + data[0] % 3 if data else 1
    if sum(data[-3:]) % TWIN_EVERY:
        motion_coder.unpack_frames(data[1:], count, MODEL)
        return
    together = motion_batch.unpack_frames_batch([data[1:]] * 8, [count] * 8, MODEL)
    try:
        alone = motion_coder.unpack_frames(data[1:], count, MODEL)
    except SglatError:
        if together is not None:
            raise AssertionError("only the slow twin refuses") from None
        return
    if together is None or not all(np.array_equal(alone, one) for one in together):
        raise AssertionError("the fast twin differs")


def compare_integers(data: bytes) -> None:
    """Decode the same integers with both twins."""
    if len(data) < 4:
        return
    count = int.from_bytes(data[:2], "little") % MOST_INTEGERS
    options = {"lane_bits": data[2] % 6, "spread": data[3] % 36}
    try:
        slow = integers.unpack_integers_scalar(data[4:], count, **options)
    except SglatError:
        slow = None
    if sum(data[-3:]) % TWIN_EVERY:
        return
    try:
        fast = integers.unpack_integers(data[4:], count, **options)
    except SglatError:
        fast = None
    if (slow is None) != (fast is None) or (slow is not None and not np.array_equal(slow, fast)):
        raise AssertionError("the twins differ")


def read_index(payload: bytes) -> None:
    """Read INDX at a constant and at a variable rate."""
    for ticks in (1, None):
        try:
            extras.unpack_index(payload, frame_ticks=ticks, start_ticks=0)
        except SglatError:
            continue


PARSERS = {
    "HEAD": header.unpack_header,
    "IDEN": lambda payload: identity.unpack_base(payload, LATENT_SHAPE),
    "LAYR": lambda payload: identity.unpack_layer(payload, 1, LATENT_SHAPE),
    "MOTN": lambda payload: read_group(payload, CONSTANT),
    "MOTN variable": lambda payload: read_group(payload, VARIABLE),
    "PLAC": read_placement,
    "AHDR": extras.unpack_audio_format,
    "APKT": extras.unpack_audio_packets,
    "PLAT": extras.unpack_picture,
    "PROV": extras.unpack_provenance,
    "META": extras.unpack_metadata,
    "INDX": read_index,
    "IREF": identity.unpack_reference,
    "frames": compare_frames,
    "integers": compare_integers,
}
NAMES = list(PARSERS)


def check(data: bytes) -> None:
    """Give one input to its parser."""
    if not data:
        return
    try:
        PARSERS[NAMES[data[0] % len(NAMES)]](data[1:])
    except SglatError:
        return


def write_seeds(folder: Path) -> int:
    """Write the payloads of all vectors, and coder streams, as inputs; return their number."""
    folder.mkdir(parents=True, exist_ok=True)
    inputs = set()
    for path in (ROOT / "format_spec" / "vectors").rglob("*.sglat"):
        data = path.read_bytes()
        at = 8
        while at + 12 <= len(data):
            size = int.from_bytes(data[at + 5 : at + 8], "little")
            kind = data[at : at + 4].decode("latin-1")
            for number, name in enumerate(NAMES):
                if name.split()[0] == kind:
                    inputs.add(bytes([number]) + data[at + 8 : at + 8 + size])
            at += 12 + size
    ramp = np.cumsum(np.arange(6 * 34).reshape(6, 34) % 7 - 3, axis=0)
    inputs.add(bytes([NAMES.index("frames"), 5]) + vector_tools.frames_stream(ramp))
    for lanes in range(6):
        stream = vector_tools.integers_stream([n * n % 61 - 30 for n in range(300)], lanes)
        inputs.add(bytes([NAMES.index("integers"), 44, 1, lanes, 16]) + stream)
    for data in inputs:
        name = f"{reference_decoder.crc32c(data):08x}"
        (folder / name).write_bytes(data)
    return len(inputs)


def main() -> None:
    """Write seeds, or run libFuzzer with the arguments of the command line."""
    if sys.argv[1:2] == ["--seeds"]:
        print(write_seeds(Path(sys.argv[2])), "inputs")
        return
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
