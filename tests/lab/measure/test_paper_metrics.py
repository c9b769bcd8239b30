"""FID, FVD and OpenFace correlations: networks, the formula, files of each kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import linalg
from torch import Tensor, nn

from sglat.errors import BundleError, UsageError
from sglat_lab.measure.paper_metrics import (
    OPENFACE_COLUMNS,
    fragments_of,
    fvd,
    gaussian_distance,
    metrics_network,
    mouth_only,
    openface_correlations,
    read_openface,
)
from sglat_lab.measure.video_nets import I3D, InceptionV3
from tests.networks.golden import _fill

EXPECTED = Path(__file__).with_name("video_nets.npz")
"""Features of pytorch-fid 0.3.0 and of pytorch-i3d under the golden weight rule."""


def rule(name: str, shape: torch.Size) -> str:
    if name.endswith("running_var"):
        return "exp_0.1"
    if name.endswith(("running_mean", "bias")):
        return "scale_0.1"
    return "one_plus_0.1" if len(shape) == 1 else "fan_in_2"


def filled(network: nn.Module, seed: str) -> nn.Module:
    state = network.state_dict()
    for name, tensor in state.items():
        if not name.endswith("num_batches_tracked"):
            entry = {
                "name": name, "shape": list(tensor.shape), "dtype": "float32",
                "rule": rule(name, tensor.shape),
            }  # fmt: skip
            state[name] = torch.from_numpy(np.array(_fill().fill_tensor(entry, seed)))
    network.load_state_dict(state)
    return network.eval()


def normal(seed: str, name: str, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(_fill().normal(seed, name, shape)).clamp(-1, 1)


@pytest.mark.shared
def test_inception_gives_the_features_of_the_reference() -> None:
    pictures = normal("fid", "pictures", (2, 3, 64, 64))
    with torch.inference_mode():
        found = filled(InceptionV3(), "fid")(pictures)
    np.testing.assert_allclose(found, np.load(EXPECTED)["fid"], atol=2e-4)


@pytest.mark.shared
def test_i3d_gives_the_features_of_the_reference() -> None:
    video = normal("fvd", "video", (1, 3, 10, 56, 56))
    video = video.repeat_interleave(4, 3).repeat_interleave(4, 4)
    with torch.inference_mode():
        found = filled(I3D(), "fvd")(video)
    np.testing.assert_allclose(found, np.load(EXPECTED)["fvd"], atol=2e-3)


def reference_distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The published formula, with the matrix root that the original implementation takes."""
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = linalg.sqrtm(first @ second).real
    gap = np.square(a.mean(0) - b.mean(0)).sum()
    return float(gap + np.trace(first + second - 2 * root))


@pytest.mark.parametrize(("count", "width"), [(60, 20), (300, 64)])
def test_the_distance_equals_the_reference_formula(count: int, width: int) -> None:
    random = np.random.default_rng(count)
    a = random.normal(size=(count, width)) @ random.normal(size=(width, width))
    b = random.normal(size=(count, width)) * 2 + 0.3
    assert gaussian_distance(a, b) == pytest.approx(reference_distance(a, b), rel=1e-3)


def test_fewer_samples_than_features_are_measured_exactly() -> None:
    """Rank-deficient Gaussians in a rotated subspace have the distance they have inside it."""
    random = np.random.default_rng(1)
    a, b = random.normal(size=(40, 8)), random.normal(size=(50, 8)) + 1
    turn = np.linalg.qr(random.normal(size=(200, 8)))[0].T
    assert gaussian_distance(a @ turn, b @ turn) == pytest.approx(reference_distance(a, b))


def test_equal_sets_have_no_distance() -> None:
    a = np.random.default_rng(2).normal(size=(10, 30))
    assert gaussian_distance(a, a) == pytest.approx(0, abs=1e-9)


class MeanColour(nn.Module):
    def forward(self, video: Tensor) -> Tensor:
        assert video.shape[1:] == (3, 120, 224, 224)
        return video.mean((2, 3, 4))


def test_fvd_is_the_mean_over_batches_of_eight_fragments() -> None:
    random = np.random.default_rng(3)
    shown = random.integers(0, 256, (10, 120, 1, 1, 3)).astype(np.uint8)
    wanted = random.integers(0, 256, (10, 120, 1, 1, 3)).astype(np.uint8)
    a, b = (x.astype(np.float64).mean((1, 2, 3)) / 127.5 - 1 for x in (shown, wanted))
    batches = [gaussian_distance(a[part], b[part]) for part in (slice(0, 8), slice(8, 10))]
    assert fvd(MeanColour(), shown, wanted) == pytest.approx(np.mean(batches), rel=1e-4)


def test_too_few_frames_for_fvd_are_refused_with_a_remedy() -> None:
    pictures = np.zeros((239, 2, 2, 3), np.uint8)
    assert fragments_of(np.zeros((300, 2, 2, 3), np.uint8)).shape == (2, 120, 2, 2, 3)
    with pytest.raises(UsageError, match="found 239 frames; measure a clip of 240 or more"):
        fragments_of(pictures)


def test_only_the_mouth_is_left() -> None:
    mask = np.zeros((1, 2, 2), bool)
    mask[0, 1, 1] = True
    assert mouth_only(np.full((1, 2, 2, 3), 9, np.uint8), mask).sum() == 27


def test_networks_that_were_not_fetched_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SGLAT_HOME", str(tmp_path))
    with pytest.raises(BundleError, match="fetch it by: sgl-bundles fetch metrics"):
        metrics_network("i3d")


def write_csv(path: Path, frames: int, *, sign: float = 1.0) -> Path:
    names = [name for names in OPENFACE_COLUMNS.values() for name in names]
    lines = ["frame, confidence, " + ", ".join(names)]  # OpenFace puts a space behind commas
    for frame in range(frames):
        wave = np.sin(frame / 3 + np.arange(len(names)))
        lines.append(f"{frame}, 0.9, " + ", ".join(f"{sign * value:.4f}" for value in wave))
    path.write_text("\n".join(lines) + "\n")
    return path


def test_openface_files_correlate(tmp_path: Path) -> None:
    a, b = write_csv(tmp_path / "a.csv", 30), write_csv(tmp_path / "b.csv", 30, sign=-1)
    assert openface_correlations(a, a) == pytest.approx(dict.fromkeys(OPENFACE_COLUMNS, 1.0))
    assert openface_correlations(a, b) == pytest.approx(dict.fromkeys(OPENFACE_COLUMNS, -1.0))


def test_openface_files_of_another_length_are_refused(tmp_path: Path) -> None:
    a, b = write_csv(tmp_path / "a.csv", 30), write_csv(tmp_path / "b.csv", 31)
    with pytest.raises(UsageError, match=r"a\.csv has 30, .*b\.csv 31; run OpenFace on"):
        openface_correlations(a, b)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected OpenFace's column AU01_r, found 0 others"),
        ("frame, x\n1, 2\n", "expected OpenFace's column AU01_r, found 2 others"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_openface(path)


def test_damaged_rows_and_empty_tables_are_refused(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", 2)
    header, first, second = path.read_text().splitlines()
    path.write_text(f"{header}\n{first}\n{second[:40]}\n")
    with pytest.raises(UsageError, match=r"line 3, AU\d\d_r: expected a number"):
        read_openface(path)
    path.write_text(f"{header}\n")
    with pytest.raises(UsageError, match="expected frames, found only a header"):
        read_openface(path)
