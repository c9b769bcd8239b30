"""A recording of a call: a valid `.sglat` of what arrived (LIVE.md section 7)."""

from __future__ import annotations

import io
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from sglat.bitstream.edits import Source
from sglat.bitstream.origins import derived
from sglat.bitstream.records import FRAME_HELD, AudioPacket, Motion
from sglat.bitstream.writer import Writer, open_writer
from sglat.live.look import Look
from sglat.live.playout import Timeline
from sglat.live.sound import opus_format
from sglat.marks.keys import Signer
from sglat.marks.provenance import sign_in_place

LAG_SLOTS: Final = 16
"""Behind the newest frame: copies that still come are taken."""
PIECE_FRAMES: Final = 64


class Recorder:
    """Writes frames in order; slots that never came repeat the frame before.

    Args:
        path: the `.sglat`; it appears when the recording is closed.
        look: the person, and the header.
        has_sound: sound is expected.
        force: replace an existing file.
        signer: signs the recording, if its key is of the kind for `.sglat` files.

    Raises:
        UsageError: it exists.
    """

    def __init__(
        self,
        path: Path,
        look: Look,
        *,
        has_sound: bool,
        force: bool,
        signer: Signer | None = None,
    ) -> None:
        self.look = look
        self._path = path
        self._signer = signer if signer is not None and signer.algorithm == "ed25519" else None
        self._stack = ExitStack()
        header = look.header
        self._writer: Writer = self._stack.enter_context(open_writer(path, header, force=force))
        for chunk in Source(io.BytesIO(look.data)).preamble:
            if chunk.type == "PROV":  # a signature is for the motion of the look's own file
                chunk = replace(chunk, payload=derived(chunk.payload))
            self._writer.put_chunk(chunk)
        self._has_sound = has_sound
        if has_sound:
            self._writer.put_audio_format(opus_format())
        self._next: int | None = None
        self._rows: list[np.ndarray[tuple[int, ...], np.dtype[np.int32]]] = []
        self._flags: list[int] = []
        self._last = look.anchor
        self._packets: list[AudioPacket] = []

    def take(self, timeline: Timeline, *, is_over: bool = False) -> None:
        """Write the frames that are settled; all that are known once a session is over."""
        end = timeline.last + 1 if is_over else timeline.last - LAG_SLOTS
        if self._next is None:
            if timeline.first is None:
                return
            self._next = timeline.first
        while self._next < end:
            found = timeline.get(self._next)
            if found is not None:
                self._last = found.values
            self._rows.append(self._last)
            self._flags.append(FRAME_HELD if found is None else found.flags)
            self._next += 1
            if len(self._rows) >= PIECE_FRAMES:
                self._write()
        if is_over:
            self._write()
            self._next = None  # another session begins its slots anew

    def hear(self, packet: AudioPacket) -> None:
        """Take a packet of sound, timed from the first frame."""
        if self._has_sound:
            self._packets.append(packet)

    def _write(self) -> None:
        if self._packets:
            self._packets.sort(key=lambda packet: packet.dts)
            self._writer.put_audio(self._packets)
            self._packets = []
        if self._rows:
            self._writer.put_motion(
                Motion(
                    values=np.array(self._rows, np.int32),
                    steps=self.look.header.motion_steps,
                    flags=np.array(self._flags, np.uint8),
                )
            )
        self._rows, self._flags = [], []

    def close(self) -> None:
        """Finish the file."""
        self._write()
        self._stack.close()
        if self._signer is not None:
            sign_in_place(self._path, self._signer)

    def discard(self) -> None:
        """Leave no file."""
        try:
            with self._stack:
                raise _Discarded
        except _Discarded:
            return


class _Discarded(Exception):
    pass
