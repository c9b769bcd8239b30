"""Variants of a file and their pictures: cut, coarser, swapped, looped, lossy and damaged ones."""

from __future__ import annotations

import io
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream import edits
from sglat.bitstream.chunks import ByteSource, read_chunks
from sglat.bitstream.groups import join_motion
from sglat.bitstream.info import verify
from sglat.bitstream.join import concat
from sglat.bitstream.reader import Reader, open_reader
from sglat.bitstream.records import Header, Motion, Placement
from sglat.bitstream.writer import GROUP_FRAMES, open_writer
from sglat.bundles.bundle import Bundle
from sglat.decoder.decode import DecodeConfig, Decoder
from sglat.errors import SglatError, UsageError
from sglat.files import atomic_file
from sglat.media.audio import AudioReader
from sglat.media.reader import VideoReader
from sglat_lab.measure.rates import file_cost

Pictures = NDArray[np.uint8]
LOSS_SHARES: Final = (0.0, 0.05, 0.1, 0.2, 0.3)
LOST_GROUP_FRAMES: Final = 12  # half a second: what a live sender puts into one packet


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """The parts of a file that the measurements need."""

    header: Header
    motion: Motion
    placement: Placement | None

    @property
    def rate(self) -> Fraction:
        """Frames per second; of a variable rate its mean."""
        ticks = self.header.frame_ticks
        if ticks is not None:
            return 1 / (ticks * self.header.time_base)
        stamps = self.motion.pts
        if stamps is None or len(stamps) < 2:
            return Fraction(25)
        span = int(stamps[-1] - stamps[0]) * self.header.time_base
        return (Fraction(len(stamps) - 1) / span).limit_denominator(1000)


def parse(path: Path) -> Parsed:
    """Read a file's header, motion and placement."""
    with open_reader(path) as reader:
        groups = reader.read_all()
        header = reader.header
    places = [group.placement for group in groups]
    placement = None
    if all(place is not None for place in places):
        known = [place for place in places if place is not None]
        values = np.concatenate([place.values for place in known])
        placement = replace(known[0], values=values, first_frame=0)
    motion = join_motion([group.motion for group in groups], header)
    return Parsed(header=header, motion=motion, placement=placement)


def source_crops(video: Path, parsed: Parsed, side: int) -> Pictures:
    """Return the source's aligned crops `[T, R, R, 3]`, cut at the file's placement.

    Args:
        video: the source.
        parsed: of the file made from it.
        side: of the crops in pixels, R.

    Raises:
        UsageError: the file has no placement or another number of frames.
    """
    from sglat.encoder.crops import crop_picture

    if parsed.placement is None:
        raise UsageError("no-placement", "expected a file with placement of the crops")
    places = parsed.placement.dequantize()
    crops = np.empty((len(places), side, side, 3), np.uint8)
    found = 0
    with VideoReader(video, threads=1) as reader:
        for frame in islice(reader, len(places)):
            crops[found] = crop_picture(frame.picture, places[frame.index], side)
            found += 1
    if found != len(places):
        raise UsageError(
            "frame-count", f"expected {len(places)} frames in {video.name}, found {found}"
        )
    return crops


def decoded_rows(path: Path, bundle: Bundle, rows: NDArray[np.int64], scratch: Path) -> Pictures:
    """Return some decoded crops `[N, R, R, 3]`; frames do not depend on each other.

    Args:
        path: the file.
        bundle: weights, at the rung that is shown.
        rows: frame numbers, rising.
        scratch: folder for a file of those frames alone.
    """
    part = with_motion(path, scratch / "rows.sglat", parse(path).motion.values, None, rows=rows)
    config = DecodeConfig(device=bundle.device.type, size=bundle.resolution)
    with part.open("rb") as file:
        return np.stack([f.picture for f in Decoder(file, bundle=bundle, config=config).frames()])


def decoded(path: Path, bundle: Bundle) -> tuple[Pictures, NDArray[np.bool_]]:
    """Return all decoded crops `[T, R, R, 3]` at the bundle's rung and which are held, `[T]`."""
    config = DecodeConfig(size=bundle.resolution)
    with path.open("rb") as file:
        frames = list(Decoder(file, bundle=bundle, config=config).frames())
    return np.stack([f.picture for f in frames]), np.array([f.is_held for f in frames])


def with_layers(path: Path, out: Path, keep: int) -> Path:
    """Write a file with the first identity layers only."""
    with path.open("rb") as file, atomic_file(out, force=True) as target:
        edits.drop_layers(file, target, keep=keep)
    return out


def with_coarser_motion(path: Path, out: Path, factor: int) -> Path:
    """Write a file whose motion is rounded to steps `factor` times as large."""
    parsed = parse(path)
    values = np.rint(parsed.motion.values / factor).astype(np.int32)
    steps = (parsed.motion.steps * np.float32(factor)).astype(np.float32)
    return with_motion(path, out, values, steps)


def with_motion(
    path: Path,
    out: Path,
    values: NDArray[np.int32],
    steps: NDArray[np.float32] | None,
    *,
    rows: NDArray[np.int64] | None = None,
    group_frames: int = GROUP_FRAMES,
    header: Header | None = None,
) -> Path:
    """Write a file with other motion and the same identity; sound and plate are left out.

    Args:
        path: where the rest comes from.
        out: the new file, replaced if it exists.
        values: integers `[T, 34]`.
        steps: `[34]`; None: those of the file.
        rows: frames to keep, rising; None: all.
        group_frames: frames in each group.
        header: to write instead of the file's own; steps and frame count are put into it.
    """
    parsed = parse(path)
    kept = np.arange(len(values)) if rows is None else rows
    steps = parsed.motion.steps if steps is None else steps
    with path.open("rb") as file:
        reader = Reader(file)
        identity, reference = reader.identity, reader.identity_reference
        neutral = reader.motion_neutral
        file.seek(0)
        origin = [chunk for chunk in read_chunks(ByteSource(file)) if chunk.type == "PROV"]
    header = replace(header or parsed.header, motion_steps=steps, frame_count=len(kept))
    old, places = parsed.motion, parsed.placement
    motion = Motion(
        values=np.ascontiguousarray(values[kept]),
        steps=steps,
        pts=None if old.pts is None else old.pts[kept],
        flags=None if old.flags is None else old.flags[kept],
    )
    if places is not None:
        places = replace(places, values=places.values[kept])
    with open_writer(out, header, group_frames=group_frames, force=True) as writer:
        if identity is not None:
            writer.put_identity(identity)
        elif reference is not None:
            writer.put_identity_reference(reference)
        if neutral is not None and identity is None:
            writer.put_motion_neutral(neutral)
        for chunk in origin:
            writer.put_chunk(chunk)
        writer.put_motion(motion, places)
    return out


def looped(path: Path, out: Path, frames: int) -> int:
    """Write a file that repeats one of constant rate to `frames` or more; return how many."""
    own = len(parse(path).motion.values)
    times = max(1, -(-frames // own))
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("rb")) for _ in range(times)]
        concat(files, stack.enter_context(atomic_file(out, force=True)))
    return times * own


def lost_groups(count: int, share: float, random: np.random.Generator) -> NDArray[np.bool_]:
    """Return which of `count` frames are lost when each group is lost by itself, `[T]`.

    The first group is never lost: it travels with the identity.
    """
    is_lost = random.random(-(-count // LOST_GROUP_FRAMES)) < share
    is_lost[0] = False
    return np.repeat(is_lost, LOST_GROUP_FRAMES)[:count]


def concealed(values: NDArray[np.int32], is_lost: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Return motion whose lost frames are straight lines between what arrived, `[T, 34]`.

    After the last frame that arrived, it is held.
    """
    arrived = np.flatnonzero(~is_lost)
    times = np.arange(len(values))
    lines = [np.interp(times, arrived, values[arrived, c]) for c in range(values.shape[1])]
    shown: NDArray[np.int32] = np.rint(np.stack(lines, axis=1)).astype(np.int32)
    return shown


def end_of(video: Path, frames: int) -> float | None:
    """Return the second before which a video's first frames lie; None: it has no more."""
    with VideoReader(video, threads=1) as reader:
        info = reader.info
    if info.frame_count and info.frame_count <= frames:
        return None
    return float((frames - Fraction(1, 2)) / info.frame_rate)


def audio_lag_seconds(video: Path) -> float | None:
    """Return how much later a video's sound begins than its picture; None: no sound."""
    with AudioReader(video) as audio:
        first = next(iter(audio), None)
        if audio.format is None or first is None:
            return None
        heard = first.pts * audio.format.time_base
    with VideoReader(video, threads=1) as frames:
        return float(heard - next(iter(frames)).pts * frames.time_base)


def audio_shift_milliseconds(video: Path, path: Path) -> float | None:
    """Return how much later the sound is against the picture than in the source; None: no sound.

    Both files are compared by the time stamps of their first picture and first sound packet.
    """
    with path.open("rb") as file:
        reader = Reader(file)
        sound = reader.audio_format
        packets = [packet for group in reader.groups() for packet in group.packets]
        packets += reader.trailing_packets
    source = audio_lag_seconds(video)
    if sound is None or not packets or source is None:
        return None
    parsed = parse(path)
    stamps = parsed.motion.pts
    first = parsed.header.start_ticks if stamps is None else int(stamps[0])
    ours = packets[0].pts * sound.time_base - first * parsed.header.time_base
    return 1000 * (float(ours) - source)


def spread(count: int, most: int) -> NDArray[np.int64]:
    """Return at most `most` frame numbers, evenly spread over `count` frames."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def corruption(path: Path, *, trials: int) -> dict[str, Any]:
    """Flip one bit, or cut the file, at random places, and count the outcomes.

    Returns:
        Per kind: tried, refused with one of our errors, read as if sound (`unnoticed`), crashed
        with anything else, and the error codes.
    """
    data = path.read_bytes()
    random = np.random.default_rng(0)
    kinds: dict[str, Any] = {}
    for kind in ("bit flips", "truncations"):
        outcomes: list[tuple[str, str]] = []
        for _ in range(trials):
            damaged = bytearray(data)
            if kind == "bit flips":
                damaged[random.integers(len(data))] ^= 1 << int(random.integers(8))
            else:
                del damaged[random.integers(len(data)) :]
            outcomes.append(_outcome(bytes(damaged)))
        counts = Counter(outcome for outcome, _ in outcomes)
        kinds[kind] = {
            "tried": trials,
            **{name: counts[name] for name in ("refused", "unnoticed", "crashed")},
            "codes": dict(Counter(code for _, code in outcomes if code)),
        }
    return kinds


def _outcome(data: bytes) -> tuple[str, str]:
    try:
        verify(io.BytesIO(data))
    except SglatError as error:
        return "refused", error.code
    except Exception as error:
        return "crashed", type(error).__name__
    return "unnoticed", ""


def lossy_file(path: Path, out: Path, share: float, *, seed: int) -> dict[str, float]:
    """Write the motion a receiver shows when groups are lost and interpolated.

    Args:
        path: as sent.
        out: as shown.
        share: chance of each group of half a second to be lost.
        seed: of the losses.

    Returns:
        Share of frames lost, their number, and the root mean square error of the lost values in
        quantizer steps.
    """
    values = parse(path).motion.values
    random = np.random.default_rng(seed)
    is_lost = lost_groups(len(values), share, random)
    shown = concealed(values, is_lost)
    with_motion(path, out, shown, None)
    error = (shown - values)[is_lost].astype(np.float64)
    rms = float(np.sqrt(np.square(error).mean())) if len(error) else 0.0
    return {
        "frames_lost": float(is_lost.sum()),
        "share_lost": float(is_lost.mean()),
        "error_steps": rms,
    }


def small_group_cost(path: Path, out: Path, group_frames: int) -> float:
    """Return the kbit/s of motion and placement when groups are short, as a live sender needs."""
    with_motion(path, out, parse(path).motion.values, None, group_frames=group_frames)
    return file_cost(out).cached
