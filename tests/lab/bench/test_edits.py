"""Locality of edits by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sglat_lab.bench.edits import Clip, local_change, merged
from tests.bitstream.samples import sample_file

SIDE = 8


class Painter:
    """Paints mouth 1 into the upper half, a tenth as bright into the lower."""

    def render(self, motion: torch.Tensor) -> torch.Tensor:
        pictures = torch.zeros(len(motion), 3, SIDE, SIDE)
        pictures[:, :, : SIDE // 2] = motion[:, 2, None, None, None]
        pictures[:, :, SIDE // 2 :] = motion[:, 2, None, None, None] / 10
        return pictures


def clip() -> Clip:
    import io

    from sglat.bitstream.reader import Reader

    data = sample_file()
    motion = Reader(io.BytesIO(data)).read_motion()
    rows = np.array([3, 20])
    upper = torch.zeros(2, 1, SIDE, SIDE)
    upper[:, :, : SIDE // 2] = 1
    painter = Painter()
    return Clip(
        data=data, values=motion.values, steps=motion.steps, rows=rows,
        renderer=painter,  # type: ignore[arg-type]
        base=painter.render(torch.from_numpy(motion.values[rows] * motion.steps)),
        masks={"mouth": upper, "chin": 1 - upper},
    )  # fmt: skip


def test_change_inside_a_region_is_told_from_the_rest() -> None:
    found = local_change(clip(), "mouth", "mouth 1", [("set", "mouth 1+2"), ("set", "mouth 1-2")])
    assert found["inside"] == pytest.approx(2, abs=0.3)
    assert found["inside"] / found["outside"] == pytest.approx(10)
    assert found["others_changed"] == 0


def test_integers_of_other_channels_are_counted() -> None:
    found = local_change(clip(), "mouth", "mouth 1", [("set", "mouth+2")])
    assert found["others_changed"] == 16 * 40


def test_the_bar_is_on_the_means_of_all_files() -> None:
    areas = {"joint_inside": 1.0, "joint_outside": 1.0, "others_changed": 0}
    one = {"inside": 4.0, "outside": 1.0, **areas}
    other = {"inside": 2.0, "outside": 1.0, **areas}
    found = merged("mouth 1", "mouth", [one, other])
    assert (found["ratio"], found["least_ratio"], found["is_local"]) == (3.0, 2.0, True)
