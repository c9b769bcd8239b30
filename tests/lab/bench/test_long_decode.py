"""Decoding apart: speed, memory, and files repeated to a length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sglat_lab.bench import file_variants, long_decode
from sglat_lab.report.pages import part
from tests.bundles.tiny import make_tiny_bundle
from tests.support.files import write_file

FRAMES = 20


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a file and the folder of its bundle."""
    folder = Path(tmp_path_factory.mktemp("decode"))
    bundle = make_tiny_bundle(folder / "bundle")
    return write_file(folder / "a.sglat", bundle, frames=FRAMES), folder / "bundle"


def test_a_looped_file_repeats_the_motion_to_whole_repeats(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    frames = file_variants.looped(made[0], tmp_path / "long.sglat", 50)
    own = file_variants.parse(made[0]).motion.values
    long = file_variants.parse(tmp_path / "long.sglat").motion.values
    assert frames == len(long) == 60
    assert (long == np.concatenate([own] * 3)).all()


@pytest.mark.parametrize("is_video", [False, True])
def test_a_fresh_process_counts_frames_memory_and_time(
    made: tuple[Path, Path], is_video: bool
) -> None:
    path, bundle = made
    found = long_decode.decode_apart(path, bundle=str(bundle), threads=1, is_video=is_video)
    assert found["frames"] == FRAMES
    assert found["threads"] == 1
    assert 50 < found["peak_memory_megabytes"] < 4000
    assert found["frames_per_second_with_start"] > 0
    assert found["import_seconds"] > 0
    assert found["process_seconds"] > found["import_seconds"]
    assert found["reference_ratio"] is None


def test_lengths_in_minutes_become_rows_of_the_table(made: tuple[Path, Path]) -> None:
    path, bundle = made
    runs = long_decode.measure(path, [0.02], threads=1, is_video=False, bundle=str(bundle))
    assert runs[0]["frames"] == 40  # 30 frames of 25 a second, in whole repeats
    assert "\n| 0.02 | 40 |" in part("long_decode", runs=runs)
