"""Figures of puppeteering on synthetic signals; no networks."""

from __future__ import annotations

import numpy as np
import pytest

from sglat.networks.face_points import BLINK_SHAPES, JAW_OPEN_SHAPE
from sglat_lab.bench import puppets
from sglat_lab.measure.landmarks import Signals


def signals(count: int = 60, *, jaw: float = 0.5, blink: float = 0.3, seed: int = 0) -> Signals:
    random = np.random.default_rng(seed)
    shapes = np.full((count, 52), 0.1, np.float32)
    shapes[:, JAW_OPEN_SHAPE] = 0.5 + jaw * np.sin(np.arange(count) / 5)
    shapes[:, list(BLINK_SHAPES)] = blink * random.random((count, 2))
    points = random.random((1, 478, 2)).repeat(count, 0).astype(np.float32)
    pose = random.normal(0, 8, (count, 2)).astype(np.float32)
    return Signals(points=points, blendshapes=shapes, pose=pose)


def test_a_sequence_follows_itself_in_all_figures() -> None:
    figures = puppets.motion_figures(signals(), signals(), side=128)
    for name in ("rho_au", "rho_pose", "r_jaw", "r_blink"):
        assert figures[name] == pytest.approx(1), name


def test_jaw_and_blink_have_no_figure_where_the_driver_keeps_them_still() -> None:
    figures = puppets.motion_figures(signals(), signals(jaw=0.01, blink=0.01), side=128)
    assert figures["r_jaw"] is None
    assert figures["r_blink"] is None


def test_the_frechet_distance_in_directions_is_zero_for_equal_sets() -> None:
    features = np.random.default_rng(0).normal(size=(78, 128))
    assert puppets.frechet_in_directions(features, features) == pytest.approx(0, abs=1e-6)


def test_a_shift_outside_the_directions_counts_in_full() -> None:
    random = np.random.default_rng(0)
    features = np.zeros((60, 40))
    features[:, :24] = random.normal(size=(60, 24))
    moved = features + np.eye(40)[39] * 2
    assert puppets.frechet_in_directions(moved, features) == pytest.approx(4, abs=1e-6)


def test_few_frames_have_no_frechet_distance() -> None:
    features = np.random.default_rng(0).normal(size=(20, 128))
    assert puppets.frechet_in_directions(features, features) is None


def test_largest_motions_are_the_extreme_frames() -> None:
    moving = signals()
    motions = puppets.largest_motions(moving)
    assert motions["widest mouth"] == int(moving.blendshapes[:, JAW_OPEN_SHAPE].argmax())
    assert motions["left"] == int(moving.pose[:, 0].argmax())


def test_the_table_has_a_row_for_each_pair_and_their_mean() -> None:
    records = [
        {"driver": "a", "puppet": "b", "rho_au": 0.4, "r_jaw": None},
        {"driver": "b", "puppet": "a", "rho_au": 0.6, "r_jaw": 0.9},
    ]
    lines = puppets.table(records).splitlines()
    assert len(lines) == 5
    assert lines[-1].startswith("| mean |  | 0.500 |")
    assert "| 0.900 |" in lines[-1]
