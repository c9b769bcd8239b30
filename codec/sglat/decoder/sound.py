"""The sound of an output, moved and thinned along with its pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from math import floor
from pathlib import Path

from sglat.bitstream.records import AudioFormat, AudioPacket
from sglat.decoder.decode import Decoder
from sglat.media.audio import open_sound
from sglat.media.reader import exact_seconds


class OutputSound:
    """The sound of the output, moved along with the pictures.

    Time 0 of the output is its first frame when a range is wanted, else the earlier of first frame
    and first sound, so that no blank stands in front.

    Args:
        decoder: of the file.
        first: time of the first frame, left out or not, in ticks of the file.
        is_wanted: take the stored sound.
        is_thinned: frames will be left out.
        audio: a file whose sound takes the place of the stored one.
    """

    def __init__(
        self,
        decoder: Decoder,
        first: int,
        *,
        is_wanted: bool,
        is_thinned: bool,
        audio: Path | None = None,
    ) -> None:
        self._decoder = decoder
        self._file = open_sound(audio) if audio is not None else None
        self._is_cut = decoder.config.start_seconds > 0
        end = decoder.config.end_seconds
        self._end = None if end is None else exact_seconds(end)
        self.format: AudioFormat | None = None
        if self._file is not None:
            self.format = self._file.format
        elif is_wanted:
            self.format = decoder.reader.audio_format
        self._early = decoder.take_audio()
        self._is_thinned = is_thinned
        self.gaps = Gaps(decoder.header.time_base)
        self.origin_ticks = self._find_origin(first)
        self._shift = self.origin_ticks * decoder.header.time_base

    def stream(self) -> tuple[AudioFormat, Iterable[AudioPacket]] | None:
        """Return format and first packets for opening a writer."""
        if self.format is None:
            return None
        if self._file is not None:
            return self.format, self.gaps.thin(self._moved(self._file), self.format.time_base)
        if not self._is_thinned:
            return self.format, self.take()
        first, self._early = self._early[:1], self._early[1:]  # the muxer needs one to open
        return self.format, list(self._moved(first))

    def take(self, until_ticks: int | None = None) -> list[AudioPacket]:
        """Return the packets that have become known, in the time of the output.

        Where frames are left out, only those that end before a frame: later ones may be left out.
        """
        self._early += self._decoder.take_audio()
        if self.format is None or self._file is not None:
            self._early = []
            return []
        base, count = self.format.time_base, len(self._early)
        if self._is_thinned and until_ticks is not None:
            limit = (until_ticks + self.origin_ticks) * self._decoder.header.time_base
            count = sum((p.pts + p.duration) * base <= limit for p in self._early)
        ready, self._early = self._early[:count], self._early[count:]
        return list(self.gaps.thin(self._moved(ready), base))

    def close(self) -> None:
        """Release the file that gives the sound."""
        if self._file is not None:
            self._file.close()

    def _find_origin(self, first: int) -> int:
        """Return time 0 of the output in ticks of the file."""
        if self._is_cut or self.format is None or self._file is not None or not self._early:
            return first if self._is_cut else max(0, first)
        base = self._decoder.header.time_base
        sound = self._early[0].pts * self.format.time_base
        return max(0, min(first, floor(sound / base)))

    def _moved(self, packets: Iterable[AudioPacket]) -> Iterator[AudioPacket]:
        assert self.format is not None
        base = self.format.time_base
        ticks = round(self._shift / base)
        for packet in packets:
            if self._end is not None and packet.pts * base >= self._end:
                continue
            if self._is_cut and packet.pts + packet.duration <= ticks:
                continue
            yield AudioPacket(
                data=packet.data,
                pts=packet.pts - ticks,
                dts=packet.dts - ticks,
                duration=packet.duration,
                is_key_frame=packet.is_key_frame,
            )


class Gaps:
    """Time left out of the output; the sound loses whole packets and stays within one of them.
    Ticks are the frames'."""

    def __init__(self, time_base: Fraction) -> None:
        self.ticks = 0
        """Length of all gaps so far, in units of the time base."""
        self._time_base = time_base
        self._last = (Fraction(0), Fraction(0))
        self._before = Fraction(0)  # length of all gaps before the last
        self._dropped = Fraction(0)

    def leave_out(self, start_ticks: int, duration: int) -> None:
        """Leave out a frame, given in order."""
        start = start_ticks * self._time_base
        end = start + duration * self._time_base
        self.ticks += duration
        if start == self._last[1]:
            self._last = (self._last[0], end)
        else:
            self._before += self._last[1] - self._last[0]
            self._last = (start, end)

    def thin(self, packets: Iterable[AudioPacket], base: Fraction) -> Iterator[AudioPacket]:
        """Leave packets out as soon as more time is left out before their end than sound."""
        for packet in packets:
            start, end = self._last
            passed = min(
                max((packet.pts + packet.duration) * base - start, Fraction(0)), end - start
            )
            excess = self._before + passed - self._dropped
            if excess > packet.duration * base / 2:
                self._dropped += packet.duration * base or excess
                continue
            ticks = round(self._dropped / base)
            yield replace(packet, pts=packet.pts - ticks, dts=packet.dts - ticks)
