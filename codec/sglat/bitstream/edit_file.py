"""Edits by name on files: motion is edited, all else is copied, the record says so."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from sglat.bitstream import origins
from sglat.bitstream.demux import Group, Packets
from sglat.bitstream.edit_grammar import Edit
from sglat.bitstream.edit_motion import MotionEditor, OtherMotion, changed_channels
from sglat.bitstream.edits import Source, check_same_decoder
from sglat.bitstream.groups import join_motion, pack_motion, unpack_group_head, unpack_motion
from sglat.bitstream.identity import NEUTRAL_BYTES, unpack_neutral
from sglat.bitstream.motion_columns import read_columns
from sglat.bitstream.motion_table import TABLE_SUFFIXES
from sglat.bitstream.records import Float32, Header, Motion
from sglat.bitstream.writer import Muxer
from sglat.errors import BundleMismatchError, UsageError
from sglat.files import naming, open_input

SOUND_CHUNKS: Final = ("AHDR", "APKT")


@dataclass(frozen=True, kw_only=True)
class EditReport:
    """What an edit changed."""

    frames: int
    """In the file."""
    changed: str
    """Channels whose integers changed, by name."""
    changed_frames: int
    """Frames with such integers."""
    is_sound_dropped: bool
    """The file had sound, and its speed has changed."""
    was_signed: bool
    """The file before had a signature, whether it held or not."""
    notes: tuple[str, ...]
    """What a user should know, one line each."""


def edit_motion(
    file: BinaryIO, out: BinaryIO, edits: Sequence[Edit], *, own_names: Sequence[str] = ()
) -> EditReport:
    """Write a file with edited motion; groups that no edit changes keep their bytes.

    Look, placement, flags and metadata are copied. The record of origin gets the edits' texts, and
    those of files whose motion was mixed in; a signature, which does not cover the new motion,
    becomes an origin. Where the speed changes sound is dropped: packets cannot be stretched.

    Args:
        file: seekable.
        out: open for writing.
        edits: in their order.
        own_names: of the controls in the file's bundle.

    Raises:
        UsageError: an edit that does not fit the file. BundleMismatchError: a file to mix in is for
            other weights. FormatError: damage in one of the files.
    """
    file.seek(0)
    source = Source(file)
    header = source.header
    parts = [
        unpack_motion(event.head, header) for event in source.body() if isinstance(event, Group)
    ]
    before = join_motion(parts, header)
    with naming(file):
        editor = MotionEditor(before, header, neutral=_neutral(source), own_names=own_names)
    drives: list[bytes] = []
    for edit in edits:
        other = None
        if edit.source is not None:
            other, record = _other_motion(edit.source, header, own_names)
            drives += [] if record is None else [record]
        editor.apply(edit, other)
    after = editor.motion()
    file.seek(0)
    has_sound = editor.speed != 1 and source.payload("AHDR") is not None
    _write(file, out, after, editor, [edit.text for edit in edits], drives)
    changed, count = changed_channels(before.values, after.values)
    prov = source.payload("PROV")
    return EditReport(
        frames=len(after.values), changed=changed, changed_frames=count,
        is_sound_dropped=has_sound, was_signed=prov is not None and origins.is_signed(prov),
        notes=tuple(editor.notes),
    )  # fmt: skip


def _write(
    file: BinaryIO, out: BinaryIO, motion: Motion, editor: MotionEditor, texts: list[str],
    drives: list[bytes],
) -> None:  # fmt: skip
    source = Source(file)
    is_retimed = editor.speed != 1
    muxer = Muxer(out, replace(source.header, time_base=source.header.time_base / editor.speed))
    left_out = ("PROV", *(SOUND_CHUNKS if is_retimed else ()))
    muxer.copy([chunk for chunk in source.preamble if chunk.type not in left_out])
    made_by = source.header.encoder or "sglat"
    muxer.put("PROV", origins.edited(source.payload("PROV"), texts, drives, made_by=made_by))
    for event in source.body():
        match event:
            case Group(head=head):
                rows = slice(head.first_frame, head.first_frame + head.frame_count)
                values = motion.values[rows]
                payload = event.chunk.payload
                if not np.array_equal(values, unpack_motion(head, source.header).values):
                    part = Motion(
                        values=values, steps=muxer.header.motion_steps,
                        first_frame=head.first_frame, pts=head.pts, flags=head.flags,
                    )  # fmt: skip
                    payload = pack_motion(part, muxer.header)
                muxer.put_group(payload, unpack_group_head(payload, muxer.header))
            case Packets() if is_retimed:
                continue
            case _:
                muxer.copy([event.chunk])
    muxer.finish(hashlib.sha256(motion.values.astype("<i4").tobytes()).digest())


def _neutral(source: Source) -> Float32 | None:
    """Return the neutral of the person whose motion a file has, `[34]`; None: in another file."""
    data = source.payload("NEUT") or (source.payload("IDEN") or b"")[:NEUTRAL_BYTES]
    return unpack_neutral(data) if data else None


def _other_motion(
    path: Path, header: Header, own_names: Sequence[str]
) -> tuple[OtherMotion, bytes | None]:
    """Return the motion of a file to mix in and its PROV."""
    if path.suffix.lower() in TABLE_SUFFIXES:
        columns = read_columns(path, own_names)
        return OtherMotion(values=columns, seconds=None, neutral=None, name=path.name), None
    with open_input(path) as file:
        other = Source(file)
        with naming(file):
            try:
                check_same_decoder(header, other.header)
            except BundleMismatchError as error:
                error.message += "; encode it with this file's bundle to mix it in"
                raise
        parts = [
            unpack_motion(event.head, other.header)
            for event in other.body()
            if isinstance(event, Group)
        ]
        motion, neutral = join_motion(parts, other.header), _neutral(other)
        if not len(motion.values):
            raise UsageError("no-motion", f"{path.name}: expected motion to mix in, found none")
        if neutral is None:
            raise UsageError(
                "no-neutral",
                f"{path.name}: its person lies in another file; put it in: sgl-swap --attach",
            )
        stamps = motion.stamps(other.header)
        seconds = (stamps - stamps[0]).astype(np.float64) * float(other.header.time_base)
        return OtherMotion(
            values=motion.dequantize().astype(np.float64), seconds=seconds,
            neutral=neutral.astype(np.float64), name=path.name,
        ), other.payload("PROV")  # fmt: skip
