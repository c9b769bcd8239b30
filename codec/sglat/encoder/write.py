"""Writing: identity, motion, placement and audio into one file, audio interleaved with motion."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.constants import CHUNK_FRAME_BYTES, FIRST_VERSION, UPPER_VERSION
from sglat.bitstream.extras import unpack_provenance
from sglat.bitstream.identity import needed_version, pack_identity
from sglat.bitstream.info import describe, stream_bytes
from sglat.bitstream.motion_coder import fit_model, quantize
from sglat.bitstream.origins import pack_fitting
from sglat.bitstream.records import (
    FRAME_CUT,
    FRAME_HELD,
    AudioPacket,
    Header,
    Identity,
    IdentityReference,
    Motion,
    Picture,
    Placement,
    Provenance,
)
from sglat.bitstream.writer import GROUP_FRAMES, Writer, open_writer
from sglat.bundles.bundle import Bundle
from sglat.encoder.track import Track
from sglat.errors import UsageError
from sglat.media.audio import AudioReader, SoundChoice, StoredSound
from sglat.media.reader import Clip, VideoReader, constant_step, reduce_timing
from sglat.version import __version__

# A quarter of a pixel of the full frame, and as much at the crop's rim by roll of a 300 px face
PLACEMENT_STEPS = np.array([0.25, 0.25, 0.5, 0.1], np.float32)
MAX_CONSENT_BYTES: Final = 1 << 15  # half of a PROV chunk; the rest is for notes


@dataclass(frozen=True, kw_only=True)
class Contents:
    """Contents of a file besides the header."""

    bundle: Bundle
    identity: Identity
    motion: NDArray[np.int32]
    """`[T, 34]`."""
    steps: NDArray[np.float32]
    """`[34]`."""
    placement: NDArray[np.float64] | None
    """`[T, 4]`; None leaves the track out."""
    track: Track
    provenance: Provenance
    plate: Picture | None
    settings: dict[str, str]
    reference: IdentityReference | None = None
    """Stands in the file in place of the identity."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a file takes, and what was done to make it."""

    bytes_by_stream: dict[str, int]
    notes: list[str]
    """Changes of colours, fields and sound, one line each."""


def check_consent(text: str) -> None:
    """Raise UsageError for a statement of consent that a file cannot hold."""
    try:
        size_bytes = len(text.encode())
    except UnicodeEncodeError as error:
        raise UsageError("bad-consent", "expected --consent as UTF-8, found other bytes") from error
    if size_bytes > MAX_CONSENT_BYTES:
        raise UsageError(
            "bad-consent",
            f"expected --consent of at most {MAX_CONSENT_BYTES} bytes, found {size_bytes}",
        )


def write_file(
    source: Path | Clip,
    target: Path,
    contents: Contents,
    *,
    audio: SoundChoice = "auto",
    force: bool,
) -> Written:
    """Write a file; its sound is read from the source.

    Raises:
        UsageError: the target exists and `force` is not set.
        MediaError: sound that cannot be stored as wanted.
    """
    track = contents.track
    time_base, stamps = reduce_timing([int(p) for p in track.pts], track.time_base)
    step = constant_step(stamps)
    if step is None and len(stamps) == 1:  # a single frame lasts one period of the rate
        step = max(1, round(1 / (track.frame_rate * time_base)))
    header = Header(
        decoder_id=contents.bundle.decoder_id,
        bundle=contents.bundle.name,
        resolution=contents.bundle.resolution,
        num_ws=contents.bundle.num_ws,
        w_dim=contents.bundle.style_dim,
        motion_steps=contents.steps,
        upper_id=contents.bundle.upper_id,
        read_version=max(
            needed_version(contents.identity),
            FIRST_VERSION if contents.bundle.upper_id is None else UPPER_VERSION,
        ),
        model=fit_model(contents.motion),
        time_base=time_base,
        frame_ticks=step,
        start_ticks=stamps[0] if step is not None else 0,
        frame_count=len(contents.motion),
        source_size=(track.width, track.height),
        placement_steps=PLACEMENT_STEPS if contents.placement is not None else None,
        encoder=f"sglat {__version__}",
        settings=contents.settings,
    )
    with VideoReader(source) as video:
        pictures = video.notes
        sound = AudioReader(
            video.path, zero_seconds=video.zero_seconds, end_seconds=video.end_seconds,
            is_cut=not video.clip.is_whole,
        )  # fmt: skip
    with sound, open_writer(target, header, force=force) as writer:
        stored = StoredSound(sound, audio)
        if contents.reference is None:
            writer.put_identity(contents.identity)
        else:
            writer.put_identity_reference(contents.reference)
            writer.put_motion_neutral(contents.identity.neutral)
        if contents.plate is not None:
            writer.put_plate(contents.plate)
        record = replace(contents.provenance, note="; ".join(pictures))
        writer.put_provenance(unpack_provenance(pack_fitting(record)))
        audio_base = Fraction(1)
        if stored.format is not None:
            writer.put_audio_format(stored.format)
            audio_base = stored.format.time_base
        _interleave(writer, contents, stamps, time_base, step, iter(stored), audio_base)
    with target.open("rb") as file:
        counts = stream_bytes(describe(file))
    seconds = float((track.pts[-1] - track.pts[0]) * track.time_base + 1 / track.frame_rate)
    notes = stored.notes(seconds=seconds, file_bytes=counts["total"])
    return Written(bytes_by_stream=counts, notes=pictures + notes)


def _interleave(
    writer: Writer,
    contents: Contents,
    stamps: list[int],
    time_base: Fraction,
    step: int | None,
    packets: Iterator[AudioPacket],
    audio_base: Fraction,
) -> None:
    """Put each motion group behind the audio packets that start before it ends."""
    flags = contents.track.held * FRAME_HELD + contents.track.cut * FRAME_CUT
    placement = None
    if contents.placement is not None:
        placement = quantize(contents.placement.astype(np.float32), PLACEMENT_STEPS)
    waiting: AudioPacket | None = next(packets, None)
    for first in range(0, len(stamps), GROUP_FRAMES):
        span = slice(first, first + GROUP_FRAMES)
        is_last = first + GROUP_FRAMES >= len(stamps)
        end = stamps[min(first + GROUP_FRAMES, len(stamps) - 1)] * time_base
        group: list[AudioPacket] = []
        while waiting is not None and (is_last or waiting.dts * audio_base < end):
            group.append(waiting)
            waiting = next(packets, None)
        if group:
            writer.put_audio(group)
        motion = Motion(
            values=contents.motion[span],
            steps=contents.steps,
            pts=None if step is not None else np.array(stamps[span], np.int64),
            flags=flags[span].astype(np.uint8),
        )
        where = None
        if placement is not None:
            where = Placement(values=placement[span], steps=PLACEMENT_STEPS)
        writer.put_motion(motion, where)


def identity_size(identity: Identity) -> int:
    """Return the size of an identity in a file, in bytes."""
    return sum(len(payload) + CHUNK_FRAME_BYTES for _, payload in pack_identity(identity))
