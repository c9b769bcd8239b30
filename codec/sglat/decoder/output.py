"""Decoded frames to a video file, a PNG sequence or a pipe, with the sound they belong to."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal

from sglat.decoder.backdrop import Backdrop, StillBackdrop, VideoBackdrop, open_backdrop
from sglat.decoder.composite import CompositeConfig
from sglat.decoder.decode import QUEUE_BATCHES, DecodedFrame, Decoder, prefetch
from sglat.decoder.paint import FaceTrack
from sglat.decoder.sound import OutputSound
from sglat.errors import UsageError
from sglat.files import refuse_existing
from sglat.marks.keys import Signer
from sglat.marks.label import draw_label
from sglat.marks.marking import MarkChoice, Marker, Shown, signed_by, signing_notes
from sglat.media.containers import choose_encoder, encoder_options
from sglat.media.pictures import (
    PngWriter,
    RawWriter,
    decode_picture,
    refuse_other_files,
)
from sglat.media.writer import VideoWriter

Progress = Callable[[int, int | None], None]
"""Called with frames written and frames expected, where known."""
PIPE: Final = Path("-")
NOMINAL_RATE: Final = Fraction(25)  # for the header of a video with a variable rate


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """Where decoded frames go and in which form."""

    path: Path
    """Video file, folder of pictures, or `-` for bare RGB on the standard output."""
    form: Literal["video", "png", "raw"] = "video"
    onto: Path | None = None
    """Video or picture into which the face is pasted."""
    track: FaceTrack | None = None
    """Where the face lies in `onto`; None: where the `.sglat` file has it."""
    composite: CompositeConfig = CompositeConfig()  # noqa: RUF009 - frozen
    """Mask and seam of the face that is pasted."""
    crop_only: bool = False
    """Leave the file's own background plate unused."""
    encoder: str = "auto"
    crf: int | None = None
    """Quality on the video encoder's own scale."""
    quality: int | None = None
    """0 to 100, for any video encoder."""
    has_sound: bool = True
    audio: Path | None = None
    """A file whose sound takes the place of the stored one; its time is the `.sglat` file's."""
    skip_lost: bool = False
    """Leave out held frames and their sound; not with `onto`."""
    inputs: tuple[Path, ...] = ()
    """More files that are read, so that none of them is replaced."""
    force: bool = False
    threads: int = 0
    signer: Signer | None = None
    """Who signs the output with C2PA; None: it carries tags alone."""
    has_watermark: bool = True
    """Mark the pictures; without it the tags say so."""
    label: str | None = None
    """Text of the visible label; empty: none; None: what the file asks for."""


@dataclass(frozen=True, kw_only=True)
class Lead:
    """Frames left out at the start."""

    ticks: int
    """Time of the first frame, left out or not."""
    frames: int = 0


@dataclass(frozen=True, kw_only=True)
class OutputResult:
    """What was written."""

    frames: int
    """Written."""
    held_frames: int
    """Of these, frames without a face in the source."""
    width: int
    """Of the pictures in pixels."""
    height: int
    """Of the pictures in pixels."""
    seconds: float
    """Wall time from the first byte to the last."""
    notes: list[str] = field(default_factory=list)
    """What was done to sound and colours, one line each."""
    signer: str = ""
    """Who signed the output; empty if nobody did."""
    watermark: str = ""
    """Identifier of the pictures' watermark; empty if it was left out."""
    label: str = ""
    """Text written into the pictures; empty if none."""

    @property
    def frames_per_second(self) -> float:
        """Speed of decoding, reading and writing included."""
        return self.frames / self.seconds if self.seconds > 0 else 0.0


def write_decoded(
    decoder: Decoder, config: OutputConfig, *, progress: Progress | None = None
) -> OutputResult:
    """Decode a file to its end, or to the end of the range, and write the frames.

    Raises:
        MediaError: the output cannot be written.
        UsageError: the output exists or is an input; no frames in the range; `onto` without
            placement.
        FormatError: damage in the file; nothing is written then.
    """
    started = time.monotonic()
    check_output(config)
    backdrop = _choose_backdrop(decoder, config)
    frames = prefetch(
        decoder.frames(backdrop, track=config.track, composite=config.composite),
        QUEUE_BATCHES * decoder.config.batch,
    )
    try:
        first = next(frames, None)
        lead = Lead(ticks=first.pts if first is not None else 0)
        while first is not None and config.skip_lost and first.is_held:
            lead, first = replace(lead, frames=lead.frames + 1), next(frames, None)
        if first is None:
            what = "frames with the face" if config.skip_lost else "frames"
            raise UsageError("empty-range", f"there are no {what} in this range")
        marker = marker_of(decoder, config)
        if marker.label:
            draw_label(first.picture, marker.label)  # too small a picture is refused at once
        written = _write(decoder, config, marker, lead, first, frames, progress)
    finally:
        frames.close()  # type: ignore[attr-defined]
        if isinstance(backdrop, VideoBackdrop):
            backdrop.close()
    height, width = first.picture.shape[:2]
    place = PIPE if config.form == "raw" else config.path
    return OutputResult(
        frames=written[0],
        held_frames=written[1],
        width=width,
        height=height,
        seconds=time.monotonic() - started,
        notes=[
            *decoder.notes,
            *(backdrop.notes if isinstance(backdrop, VideoBackdrop) else []),
            *written[2],
            *signing_notes(config.signer, place, is_folder=config.form == "png"),
        ],
        signer=signed_by(config.signer, place, is_folder=config.form == "png"),
        watermark=marker.watermark.identifier.hex() if marker.watermark else "",
        label=marker.label,
    )


def shown_of(decoder: Decoder) -> Shown:
    """Return whom and what the pictures of a file show."""
    reader = decoder.reader
    reference, provenance = reader.identity_reference, reader.provenance
    identity = reference.sha256 if reference is not None else reader.identity_sha256
    return Shown(
        identity_sha256=identity or b"",
        decoder_id=decoder.header.decoder_id,
        generated_by=provenance.generated_by if provenance else decoder.header.encoder or "sglat",
        provenance=provenance,
    )


def marker_of(decoder: Decoder, config: OutputConfig) -> Marker:
    """Return what marks the pictures of an output."""
    choice = MarkChoice(
        has_watermark=config.has_watermark, label=config.label, signer=config.signer
    )
    is_composite = config.onto is not None or _has_plate(decoder, config)
    return Marker(shown_of(decoder), choice, is_composite=is_composite)


def check_output(config: OutputConfig) -> None:
    """Refuse an output before anything is rendered for it.

    Raises:
        MediaError: no such encoder, or not for this container.
        UsageError: the output exists or is an input; frames left out of another video.
    """
    if config.skip_lost and config.onto is not None:
        raise UsageError("bad-options", "--onto keeps every frame; --skip-lost contradicts it")
    if config.form != "raw":
        refuse_existing(
            config.path, force=config.force, is_folder=config.form == "png",
            inputs=(config.onto, config.audio, *config.inputs),
        )  # fmt: skip
    if config.form == "png":
        refuse_other_files(config.path)
    if config.form == "video":
        encoder = choose_encoder(config.encoder, config.path)
        encoder_options(encoder, crf=config.crf, quality=config.quality)


def _choose_backdrop(decoder: Decoder, config: OutputConfig) -> Backdrop | None:
    if config.onto is not None:
        return open_backdrop(config.onto)
    plate = decoder.reader.plate
    if plate is None or not _has_plate(decoder, config):
        return None
    picture = decode_picture(plate.data, what="background plate")
    return StillBackdrop(picture, has_face=False)  # the whole crop covers it


def _has_plate(decoder: Decoder, config: OutputConfig) -> bool:
    """Whether the face is pasted into the background that the file carries."""
    is_placed = decoder.header.placement_steps is not None
    return decoder.reader.plate is not None and is_placed and not config.crop_only


def _write(
    decoder: Decoder,
    config: OutputConfig,
    marker: Marker,
    lead: Lead,
    first: DecodedFrame,
    rest: Iterable[DecodedFrame],
    progress: Progress | None,
) -> tuple[int, int, list[str]]:
    count, held = 0, lead.frames
    opened = OutputSound(
        decoder, lead.ticks, is_wanted=config.has_sound and config.form == "video",
        is_thinned=config.skip_lost, audio=config.audio,
    )  # fmt: skip
    with (
        closing(opened) as sound,
        _open_writer(decoder, config, first, sound, marker) as writer,
    ):
        origin, gaps = sound.origin_ticks, sound.gaps
        gaps.leave_out(lead.ticks - origin, first.pts - lead.ticks)
        frame: DecodedFrame | None = first
        iterator = iter(rest)
        while frame is not None:
            following = next(iterator, None)
            ticks = decoder.header.frame_ticks or 0
            duration = following.pts - frame.pts if following is not None else ticks
            held += frame.is_held
            if config.skip_lost and frame.is_held:
                gaps.leave_out(frame.pts - origin, duration)
                frame = following
                continue
            if isinstance(writer, VideoWriter):
                writer.add_audio(sound.take(frame.pts - origin))
            pts = frame.pts - origin - gaps.ticks
            seconds = float(pts * decoder.header.time_base)
            picture = marker.mark(frame.picture, seconds, frame.generated)
            writer.write(picture, pts, duration=duration)
            count += 1
            if progress is not None:
                progress(count, decoder.header.frame_count)
            frame = following
        if isinstance(writer, VideoWriter):
            writer.add_audio(sound.take())
    return count, held, writer.notes if isinstance(writer, VideoWriter) else []


def _open_writer(
    decoder: Decoder, config: OutputConfig, first: DecodedFrame, sound: OutputSound, marker: Marker
) -> VideoWriter | PngWriter | RawWriter:
    def motion() -> dict[str, str]:  # known once all frames are decoded
        end = decoder.reader.end
        return {} if end is None else {"motion_sha256": end.motion_sha256.hex()}

    finish = marker.finisher(
        config.path, parent=config.onto, is_folder=config.form == "png", more=motion
    )
    if config.form == "raw":
        return RawWriter(sys.stdout.buffer)
    if config.form == "png":
        return PngWriter(config.path, marks=marker.tags(), force=config.force, finish=finish)
    height, width = first.picture.shape[:2]
    return VideoWriter(
        config.path,
        size=(width, height),
        time_base=decoder.header.time_base,
        frame_rate=decoder.frame_rate or NOMINAL_RATE,
        audio=sound.stream(),
        metadata=marker.tags(),
        encoder=config.encoder,
        crf=config.crf,
        quality=config.quality,
        is_sound_cut=config.audio is not None,
        force=config.force,
        threads=config.threads,
        finish=finish,
    )
