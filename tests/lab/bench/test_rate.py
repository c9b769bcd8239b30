"""Rate figures: sizes add up, means are means, and targets follow from the figures."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from sglat.bitstream.reader import Reader
from sglat_lab.bench import motion_tracks, rate
from sglat_lab.measure.landmarks import Tracked
from sglat_lab.report.pages import page

pytest.importorskip("zstandard")


def walk(frames: int, seed: int = 0) -> np.ndarray:
    steps = np.random.default_rng(seed).integers(-1, 2, (frames, 34))
    return np.cumsum(steps, axis=0).astype(np.int32)


def test_the_parts_of_a_file_add_up_to_its_bytes() -> None:
    data = motion_tracks.write_file(walk(60))
    sizes = rate.sizes_of(data)
    parts = ("identity", "placement", "motion", "sound", "header", "frame")
    assert sizes["bytes"] == len(data) == sum(sizes[part] for part in parts)


def test_a_file_of_a_track_gives_its_integers_back_and_beats_plain_codes() -> None:
    row = rate.motion_row(walk(300))
    assert row["frames"] == 300
    assert 0 < row["ours"] < row["sei"]
    assert row["saving"] == pytest.approx(1 - row["ours"] / row["sei"])


def test_means_weigh_clips_or_frames() -> None:
    rows = {
        "short": dict.fromkeys(rate.MOTION_KEYS, 10.0) | {"frames": 100},
        "long": dict.fromkeys(rate.MOTION_KEYS, 20.0) | {"frames": 300},
    }
    found = rate.motion_means(rows)
    assert (found["mean"]["ours"], found["mean_of_frames"]["ours"]) == (15.0, 17.5)
    assert found["worst_saving"] == 10.0


def test_a_latent_fills_its_budget_and_a_coarse_step_needs_less() -> None:
    found = rate.latent_probe(None)
    (row,) = found["rows"]
    assert 0.97 * rate.LAYER_BYTES < row["within"]["bytes"] <= rate.LAYER_BYTES
    assert row["coarse"]["bytes"] < row["within"]["bytes"]
    assert row["within"]["error"] < row["coarse"]["error"]
    assert not found["is_real"]


def test_given_latents_are_read_without_their_mean(tmp_path: Path) -> None:
    shape = rate.LATENT_SHAPE
    np.savez(tmp_path / "l.npz", mean=np.ones(shape), std=np.full(shape, 2.0), one=np.ones(shape))
    offsets, spread = rate.read_latents(tmp_path / "l.npz")
    assert list(offsets) == ["one"]
    assert not offsets["one"].any()
    assert (spread == 2).all()


def test_a_seek_reads_one_group_at_most() -> None:
    found = rate.seek_probe(walk(900))
    assert found["groups"] > 1
    assert found["seek_groups"] == 1
    assert found["seek_bytes"] < found["file_bytes"]


def test_container_bytes_weigh_less_beside_a_large_identity() -> None:
    small, large = rate.overhead_probe(walk(rate.MINUTE), None)["rows"]
    assert large["bytes"] - small["bytes"] > 15_000
    assert large["frame_percent"] < small["frame_percent"] < small["both_percent"]


def tracked(frames: int = 60) -> Tracked:
    random = np.random.default_rng(1)
    face = random.normal(size=(478, 3)) * 40
    points = face + np.cumsum(random.normal(size=(frames, 1, 3)), axis=0)
    points += random.normal(scale=0.5, size=(frames, 478, 3))
    names = tuple(["_neutral", *motion_tracks.BLENDSHAPES, *(f"other{i}" for i in range(19))])
    angles = np.cumsum(random.normal(size=(frames, 3)), axis=0)
    return Tracked(
        points=points.astype(np.float32),
        blendshapes=random.random((frames, 52)).astype(np.float32),
        names=names,
        angles=angles,
        is_found=np.ones(frames, bool),
        fps=25.0,
    )


@pytest.mark.parametrize("kind", ["landmark_tracks", "blendshape_tracks"])
def test_simulated_motion_carries_the_head_angles_and_costs_less_when_coarser(kind: str) -> None:
    clip = tracked()
    made = getattr(motion_tracks, kind)({"one": clip})
    np.testing.assert_allclose(made["one"].values[:, :2], clip.angles[:, :2], rtol=1e-5)
    found = rate.simulation_probe(made)
    costs = [step["ours"] for step in found["steps"]]
    assert [step["factor"] for step in found["steps"]] == list(rate.COARSER)
    assert costs == sorted(costs, reverse=True)


def test_a_record_of_a_real_file_gives_a_page_with_targets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate, "MINUTE", 40)
    path = tmp_path / "one.sglat"
    path.write_bytes(motion_tracks.write_file(walk(80)))
    record = rate.measure([path], {}, None) | {"runs": [{"commit": "abc"}]}
    assert record["real"]["clips"]["one.sglat"]["frames"] == 80
    values = Reader(io.BytesIO(path.read_bytes())).read_motion().values
    assert record["real"]["mean"]["sei"] == rate.motion_row(values)["sei"]
    text = page("rate", record | {"runs": []})
    assert "| motion, bits a frame, real files | ≤ 40 |" in text
    assert "| seek, groups read | ≤ 1 | 1 | met |" in text
    assert "| one.sglat | 80 |" in text
    assert "Simulation" not in text
