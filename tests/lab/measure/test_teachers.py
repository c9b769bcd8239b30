"""Measuring networks in their publishers' files."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from sglat.errors import UsageError
from sglat_lab.measure import judges
from sglat_lab.measure.teachers import SqueezePerceptual, squeeze_weights
from tests.support.shared import shared_path

MEAN_BGR = torch.tensor([103.939, 116.779, 123.68])


def write_keras_file(path: Path) -> Path:
    """Write random weights as keras-squeezenet lays them out."""
    random = np.random.default_rng(0)
    shared = np.load(shared_path("teachers/squeezenet1_1_features.npz"))
    names = {"features.0": "conv1"}
    for fire, index in enumerate((3, 4, 6, 7, 9, 10, 11, 12), start=2):
        for part in ("squeeze1x1", "expand1x1", "expand3x3"):
            names[f"features.{index}.{part}"] = f"fire{fire}/{part}"
    with h5py.File(path, "w") as file:
        for number, (ours, theirs) in enumerate(names.items(), start=1):
            shape = shared[f"{ours}.weight"].transpose(2, 3, 1, 0).shape
            weight = random.normal(size=shape, scale=shape[2] ** -0.5).astype(np.float32)
            file[f"{theirs}/uniform{number}"] = weight
            file[f"{theirs}/{theirs}_b"] = random.normal(size=shape[-1]).astype(np.float32)
    return path


@pytest.mark.shared
def test_the_publishers_squeezenet_sees_what_it_was_trained_on(tmp_path: Path) -> None:
    path = write_keras_file(tmp_path / "notop.h5")
    network = SqueezePerceptual(path)
    pictures = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    (_, found), *_ = network.levels(pictures, 0)
    with h5py.File(path) as file:
        weight = torch.from_numpy(file["conv1/uniform1"][()]).permute(3, 2, 0, 1)
        bias = torch.from_numpy(file["conv1/conv1_b"][()])
    bgr = (pictures.flip(1) + 1) / 2 * 255 - MEAN_BGR.view(1, 3, 1, 1)
    expected = F.conv2d(bgr, weight, bias, stride=2).relu()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-2)
    assert len(network.features(pictures.repeat(1, 1, 4, 4))) == 7


@pytest.mark.shared
def test_both_forms_have_the_same_names_and_shapes(tmp_path: Path) -> None:
    ours = squeeze_weights(shared_path("teachers/squeezenet1_1_features.npz"))
    theirs = squeeze_weights(write_keras_file(tmp_path / "notop.h5"))
    assert {name: a.shape for name, a in ours.items()} == {n: a.shape for n, a in theirs.items()}


def test_another_file_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["conv2"] = [1]
    with pytest.raises(UsageError, match=r"expected the weights of keras-squeezenet in .*a\.h5"):
        squeeze_weights(tmp_path / "a.h5")


def test_fetched_teachers_are_found_where_no_folder_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SGLAT_HOME", str(tmp_path))
    monkeypatch.setenv("SGLAT_SHARED", str(tmp_path / "nowhere"))
    assert judges.find_teachers(None) is None
    folder = judges.bundles_folder() / "teachers"
    folder.mkdir(parents=True)
    assert judges.find_teachers(None) == folder
    missing = judges.load_judges(folder).missing
    assert "sgl-bundles fetch teachers" in missing["LPIPS-like"]
