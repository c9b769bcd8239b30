"""What a receiver writes and shows in one call; used by its rendering thread alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.records import AudioPacket
from sglat.live.look import Look
from sglat.live.playout import Timeline
from sglat.live.record import Recorder
from sglat.live.rtp import CLOCK_RATE
from sglat.live.screens import Screen
from sglat.marks.marking import MarkChoice, Marker

MakeScreens = Callable[[Look, bool], list[Screen]]
"""By the person, and whether there is sound."""


class Outputs:
    """Screens and recording of one call, all of the same person.

    Args:
        make_screens: called once a call.
        record: an `.sglat`; None: none.
        force: replace an existing file.
        marks: how pictures are marked, and who signs the recording.
    """

    def __init__(
        self,
        make_screens: MakeScreens,
        *,
        record: Path | None,
        force: bool,
        marks: MarkChoice | None = None,
    ) -> None:
        self._make_screens, self._record, self._force = make_screens, record, force
        self._marks = marks or MarkChoice()
        self._screens: list[Screen] = []
        self._recorder: Recorder | None = None
        self._marker: Marker | None = None
        self.look: Look | None = None
        """The person of the call in progress."""
        self.shown_slots = 0
        """Frames before the session in progress."""

    def open(self, look: Look, *, has_sound: bool) -> None:
        """Begin a call; nothing is done in one that goes on.

        Raises:
            SglatError: an output cannot be made.
        """
        if self.look is not None:
            return
        self._screens = self._make_screens(look, has_sound)
        if self._record is not None:
            self._recorder = Recorder(
                self._record, look, has_sound=has_sound, force=self._force,
                signer=self._marks.signer,
            )  # fmt: skip
        self._marker = Marker(look.shown, self._marks)
        self.look = look

    def show(self, picture: NDArray[np.uint8], ticks: int) -> None:
        """Mark a picture and show it at a time in ticks from the first one."""
        if self._marker is not None:
            picture = self._marker.mark(picture, ticks / CLOCK_RATE)
        for screen in self._screens:
            screen.show(picture, ticks)

    def hear(self, packets: list[AudioPacket]) -> None:
        """Take sound, on the same clock."""
        for packet in packets:
            for screen in self._screens:
                screen.hear(packet)
            if self._recorder is not None:
                self._recorder.hear(packet)

    def record(self, timeline: Timeline, *, is_over: bool = False) -> None:
        """Record what is settled of a session."""
        if self._recorder is not None:
            self._recorder.take(timeline, is_over=is_over)

    def close(self) -> None:
        """End the call."""
        screens, recorder = self._screens, self._recorder
        self._screens, self._recorder, self.look, self.shown_slots = [], None, None, 0
        with ExitStack() as stack:  # one that fails leaves none of the others unfinished
            if recorder is not None:
                stack.callback(recorder.close)
            for screen in screens:
                stack.callback(screen.close)
