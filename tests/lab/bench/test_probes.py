"""Probes: which are chosen, kept and shown; each has its tables."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sglat.errors import UsageError
from sglat_lab.bench import probes
from sglat_lab.measure.judges import Judges


def test_all_probes_run_unless_some_are_named_and_quality_always() -> None:
    every = probes.chosen_probes(())
    assert every == [
        "quality",
        "rates",
        "loss",
        "damage",
        "swap",
        "solvers",
        "speed",
        "frechet",
        "published",
    ]
    assert probes.chosen_probes(("damage", "rates")) == ["quality", "rates", "damage"]


def test_an_unknown_probe_is_named() -> None:
    with pytest.raises(UsageError, match="found beauty"):
        probes.chosen_probes(("rates", "beauty"))


def test_frechet_distances_are_zero_for_the_source_and_refused_for_few_frames() -> None:
    random = np.random.default_rng(0)
    source = random.integers(0, 256, (40, 8, 8, 3)).astype(np.uint8)
    clip: Any = SimpleNamespace(
        encoded=None, shown=lambda path, name: source, reference=SimpleNamespace(pictures=source)
    )
    few = lambda crops: crops.mean((2, 3))  # noqa: E731
    found = probes.frechet_probe(Judges(identity=few), [clip], [], [])
    assert found["MobileFaceNet (128)"]["sglat"] == pytest.approx(0, abs=1e-9)
    many = lambda crops: crops.flatten(1)[:, :64]  # noqa: E731
    found = probes.frechet_probe(Judges(identity=many), [clip], [], [])
    assert found["MobileFaceNet (128)"]["sglat"].startswith("not measured: expected more than 64")
    assert torch.is_tensor(many(torch.zeros(1, 3, 8, 8)))
