"""Probes of a bundle's weights: held-back material, angles, locality of controls."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sglat_lab.bench import mini, synthesis
from sglat_lab.measure.judges import Judges, Perceptual
from sglat_lab.train.data import FaceSampler, prepare
from tests.bundles.tiny import make_tiny_bundle
from tests.lab.train.pack import make_packs


@pytest.fixture(scope="module")
def packs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_packs(Path(tmp_path_factory.mktemp("packs")))


@pytest.fixture(scope="module")
def sampler(packs: Path, tmp_path_factory: pytest.TempPathFactory) -> FaceSampler:
    faces = prepare(packs, Path(tmp_path_factory.mktemp("decoded")), 128)
    return FaceSampler(faces, packs, device=torch.device("cpu"), seed=0)


def test_held_back_stills_are_those_of_the_first_pack_in_order(
    packs: Path, sampler: FaceSampler
) -> None:
    with np.load(packs / "faces128" / "labels.npz") as labels:
        chosen = (labels["split"] == "val") & (labels["clip"] == "")
        yaw = labels["yaw"][chosen]
    stills = sampler.batch(sampler.val_stills)
    assert stills.pixels.shape == (int(chosen.sum()), 128, 128, 3)
    np.testing.assert_allclose(stills.pose_degrees[:, 0], yaw, rtol=1e-6)


def test_pairs_are_of_one_held_back_clip_and_always_the_same(sampler: FaceSampler) -> None:
    first, second = sampler.val_pairs(5)
    clip_of = dict(zip(sampler.val_frames, sampler.val_clips, strict=True))
    assert len(first) == 5
    assert {clip_of[row] for row in (*first, *second)} == {"val_clip"}
    assert sampler.val_pairs(5).tolist() == [first.tolist(), second.tolist()]


def test_slope_and_correlation_of_angles_leave_unseen_faces_out() -> None:
    angles = (-20, -10, 0, 10, 20)
    table = np.array([[0.5 * angle + offset for offset in (-1.0, 1.0)] for angle in angles])
    table[0, 0] = np.nan
    found = mini._line(angles, table)
    assert found["slope"] == pytest.approx(0.5, abs=0.03)
    assert found["r"] > 0.98
    assert found["unseen"] == 1
    assert found["means"][2] == (0, 0.0)


def test_the_same_change_to_everybody_agrees_and_opposite_ones_do_not() -> None:
    same = torch.ones(3, 2, 50)
    same[:, 1] = torch.randn(50, generator=torch.Generator().manual_seed(0))
    assert mini._agreement(same) == pytest.approx([1, 1])
    opposite = torch.stack([torch.ones(1, 50), -torch.ones(1, 50)])
    assert mini._agreement(opposite) == pytest.approx([-1])


def measured(tmp_path: Path) -> mini.Measured:
    def features(pictures: torch.Tensor) -> list[torch.Tensor]:
        return [pictures]

    perceptual = Perceptual(name="pixels", features=features, heads=(torch.ones(3),))
    identity = lambda crops: torch.nn.functional.normalize(crops.mean((2, 3)) + 2)  # noqa: E731
    judges = Judges(perceptual=perceptual, identity=identity)
    return mini.Measured(bundle=make_tiny_bundle(tmp_path / "bundle"), judges=judges, out=tmp_path)


def test_a_picture_against_itself_is_perfect_and_against_another_is_not(tmp_path: Path) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3)).astype(np.uint8)
    one = measured(tmp_path)
    same, other = one.compare(pictures, pictures), one.compare(pictures, pictures[::-1].copy())
    assert same["count"] == 3
    assert same["perceptual"] == 0
    assert same["identity"] == pytest.approx(1)
    assert other["psnr"] < 60 < same["psnr"]


def test_the_renderer_s_speed_is_counted_in_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthesis, "SPEED_RUNS", 3)
    before = torch.get_num_threads()
    found = synthesis.renderer_speed(measured(tmp_path).bundle, threads=1, batch=2)
    assert found["frames_per_second"] > 0
    assert found["processor_milliseconds"] >= 0
    assert torch.get_num_threads() == before


def test_missing_head_pose_networks_are_said(tmp_path: Path) -> None:
    faces: Any = SimpleNamespace()
    meter, missing = mini._fsa_meter(tmp_path, faces)
    assert meter is None
    assert "headpose_fsanet_1x1.onnx" in missing[0]
