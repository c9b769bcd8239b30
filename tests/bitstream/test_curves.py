"""Motion and rate over time."""

from __future__ import annotations

import io

import numpy as np
import pytest

from sglat.bitstream.curves import LEVELS, read_curves, sparkline
from sglat.bitstream.demux import Demuxer, Group, Packets
from sglat.bitstream.reader import Reader
from tests.bitstream.samples import sample_file


@pytest.mark.parametrize("is_variable", [False, True])
@pytest.mark.parametrize(("frames", "group_frames"), [(1, 16), (40, 16), (300, 256)])
def test_the_rate_adds_up_to_the_bytes_of_the_file(
    is_variable: bool, frames: int, group_frames: int
) -> None:
    data = sample_file(frames=frames, group_frames=group_frames, is_variable=is_variable)
    curves = read_curves(io.BytesIO(data))
    events = list(Demuxer(io.BytesIO(data)))
    motion = sum(len(e.chunk.payload) for e in events if isinstance(e, Group))
    sound = sum(len(p.data) for e in events if isinstance(e, Packets) for p in e.packets)
    assert curves.sound_rate is not None
    for rate, size in ((curves.motion_rate, motion), (curves.sound_rate, sound)):
        total = (rate.kilobits_per_second * np.diff(rate.edges_seconds)).sum() * 125
        assert total == pytest.approx(size)


def test_the_curves_are_the_files_values() -> None:
    data = sample_file()
    motion = Reader(io.BytesIO(data)).read_motion()
    curves = read_curves(io.BytesIO(data))
    assert np.array_equal(curves.values, motion.dequantize())
    assert len(curves.layers) == 3


def test_a_sparkline_keeps_short_peaks() -> None:
    values = np.zeros(1000)
    values[500:503] = 1.0
    line = sparkline(values, 20)
    assert (len(line), line.count(LEVELS[-1]), line.count(LEVELS[0])) == (20, 1, 19)


@pytest.mark.parametrize("values", [np.zeros(5), np.array([3.0])])
def test_a_flat_track_is_a_flat_line(values: np.ndarray) -> None:
    assert sparkline(values, 80) == LEVELS[0] * len(values)
