"""What `make demo` shows: source, decoded and swapped in one framing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sglat.bundles.bundle import Bundle
from sglat.cli.demo import (
    SHEET_COLUMNS,
    SHEET_SIDE,
    scripted_motion,
    show_side_by_side,
    source_frames,
)
from sglat.marks.check import check
from sglat.media.pictures import read_still
from sglat.media.reader import VideoReader
from tests.bundles.tiny import make_tiny_bundle
from tests.support.files import write_file
from tests.support.video import moving_square, write_video


@pytest.fixture
def folder(tmp_path: Path, bundle: Bundle) -> Path:
    write_video(tmp_path / "first.mp4", [moving_square(i) for i in range(10)])
    for name, seed in (("first", 0), ("swapped", 1)):
        write_file(tmp_path / f"{name}.sglat", bundle, frames=10, seed=seed)
    return tmp_path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(Path(tmp_path_factory.mktemp("bundle")))


def test_three_pictures_stand_side_by_side(folder: Path, bundle: Bundle) -> None:
    show_side_by_side(folder, bundle)
    with VideoReader(folder / "side_by_side.mp4") as reader:
        shapes = [frame.picture.shape for frame in reader]
    assert shapes == [(16, 48, 3)] * 10
    sheet = read_still(folder / "contact_sheet.png")
    assert sheet.shape == (3 * SHEET_SIDE, SHEET_COLUMNS * SHEET_SIDE, 3)


def test_both_are_marked_as_generated(folder: Path, bundle: Bundle) -> None:
    show_side_by_side(folder, bundle)
    of_file = check(folder / "swapped.sglat").named_watermark
    for name in ("side_by_side.mp4", "contact_sheet.png"):
        report = check(folder / name)
        assert (report.is_generated, report.named_watermark) == (True, of_file)


def test_the_source_is_cut_where_the_file_says(folder: Path) -> None:
    crops = source_frames(folder / "first.mp4", folder / "first.sglat", 32)
    assert crops.shape == (10, 32, 32, 3)
    assert not np.array_equal(crops[0], crops[9])


def test_the_act_moves_the_head_and_every_control() -> None:
    motion = scripted_motion(40).numpy()
    assert np.ptp(motion[:, 0]) > 10
    assert (motion[:, 2:].std(axis=0) > 0.05).all()
