"""Probes of the clip benchmark on drawn clips and files of a random bundle."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sglat.bundles.bundle import Bundle
from sglat.media.audio import AudioReader
from sglat_lab.bench import clips, file_variants
from sglat_lab.measure.judges import load_judges
from sglat_lab.measure.landmarks import Detection, Landmarker
from tests.bundles.tiny import make_tiny_bundle
from tests.support.files import write_file
from tests.support.video import moving_square, write_video

pytest.importorskip("skimage")
FRAMES = 12


class Drawn(Landmarker):
    """Finds a face that looks to the side by the picture's mean, but none in black pictures."""

    name = "drawn"

    def detect(self, picture: np.ndarray) -> Detection | None:
        level = float(picture.mean())
        if level == 0:
            return None
        points = np.random.default_rng(0).random((478, 3)).astype(np.float32)
        shapes = np.full(52, level / 255, np.float32)
        return Detection(points=points, blendshapes=shapes, angles=np.array([level, 0.0, 0.0]))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make_tiny_bundle(Path(tmp_path_factory.mktemp("bundle")))


@pytest.fixture
def tools(bundle: Bundle) -> Any:
    return SimpleNamespace(bundle=bundle, judges=load_judges(None), any_landmarker=Drawn())


def test_a_decoded_clip_keeps_its_sound_bit_for_bit_and_in_step(
    bundle: Bundle, tmp_path: Path
) -> None:
    video = write_video(
        tmp_path / "v.mp4", [moving_square(i) for i in range(FRAMES)], audio_codec="aac"
    )
    with AudioReader(video) as audio:
        sound = (audio.format, list(audio))
    path = write_file(tmp_path / "a.sglat", bundle, frames=FRAMES, audio=sound)
    found = clips.decode_clip(video, path, tmp_path / "out.mp4", bundle)
    assert found["audio_is_bit_exact"]
    assert found["av_offset_frames"] <= 1
    assert found["decode_frames_per_second"] > 0


def test_a_clip_without_sound_has_no_offset(bundle: Bundle, tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mp4", [moving_square(i) for i in range(FRAMES)])
    path = write_file(tmp_path / "a.sglat", bundle, frames=FRAMES)
    assert clips.decode_clip(video, path, tmp_path / "o.mp4", bundle)["av_offset_frames"] is None


def moving(count: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    levels = np.linspace(40, 200, count)[:, None, None, None]
    return np.clip(levels + random.normal(0, 5, (count, 16, 16, 3)), 1, 255).astype(np.uint8)


def test_the_source_itself_is_perfect_and_follows_itself(tools: Any) -> None:
    source = moving(30)
    figures, signals = clips.face_figures(source, source, np.zeros(30, bool), tools)
    assert figures["ours"]["psnr"] == 100
    assert figures["signals"]["yaw"]["r"] == pytest.approx(1)
    assert figures["signals"]["yaw"]["span"] == pytest.approx(153.6, rel=0.05)
    assert (figures["faces_lost"], figures["signals_by"]) == (0, "drawn")
    assert figures["inverter"]["psnr"] < 30
    assert signals.is_found.all()


def test_lost_faces_are_counted_but_not_where_the_source_is_held(tools: Any) -> None:
    source = moving(30)
    shown = source.copy()
    shown[:6] = 0
    is_held = np.arange(30) < 2
    figures, _ = clips.face_figures(source, shown, is_held, tools)
    assert figures["faces_lost"] == 4
    assert figures["frames_measured"] == 28


def test_every_pair_of_clips_is_swapped_and_drawn(
    tools: Any, bundle: Bundle, tmp_path: Path
) -> None:
    records = {}
    for seed, name in enumerate(("a", "b", "c")):
        write_file(tmp_path / f"{name}.sglat", bundle, frames=FRAMES, seed=seed)
        records[name] = {"figures": {"telling_frames": {"mouth open": 3}}}
    assert clips.swap_all(records, tmp_path, tools) == 6
    own, other, swapped = (
        file_variants.parse(tmp_path / f"{name}.sglat").motion.values
        for name in ("a", "b", "a_on_b")
    )
    assert (swapped == own).all()
    assert (swapped != other).any()
    assert (tmp_path / "swaps.png").stat().st_size > 0


def test_spread_rows_leave_held_frames_out() -> None:
    is_held = np.zeros(400, bool)
    is_held[100:300] = True
    rows = clips.spread_rows(is_held)
    assert len(rows) == clips.PICTURE_ROWS
    assert not is_held[rows].any()
    assert (rows[0], rows[-1]) == (0, 399)
