"""The perceptual interface: what every network behind it must do, and LPIPS where it is at hand."""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from sglat.errors import BundleError, MissingExtraError, UsageError
from sglat.networks.perceptual import (
    ALEXNET_WIDTHS,
    Lpips,
    unit_features,
    weighted_feature_distance,
)


def features(seed: int) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [unit_features(torch.randn(2, c, s, s, generator=random)) for c, s in ((4, 8), (6, 4))]


HEADS = [torch.linspace(0, 1, 4), torch.linspace(1, 2, 6)]


def test_equal_features_have_no_distance() -> None:
    assert weighted_feature_distance(features(1), features(1), HEADS).tolist() == [0.0, 0.0]


def test_distance_is_the_weighted_sum_over_channels_averaged_over_positions() -> None:
    expected = 0.0
    for a, b, head in zip(features(1), features(2), HEADS, strict=True):
        expected += float(((a[0] - b[0]) ** 2 * head[:, None, None]).sum() / a[0, 0].numel())
    found = weighted_feature_distance(features(1), features(2), HEADS)
    assert float(found[0]) == pytest.approx(expected, rel=1e-5)


def test_full_mask_changes_nothing_and_empty_mask_gives_zero() -> None:
    plain = weighted_feature_distance(features(1), features(2), HEADS)
    full = weighted_feature_distance(features(1), features(2), HEADS, torch.ones(2, 1, 16, 16))
    empty = weighted_feature_distance(features(1), features(2), HEADS, torch.zeros(2, 1, 16, 16))
    torch.testing.assert_close(full, plain)
    assert empty.tolist() == [0.0, 0.0]


def test_a_difference_outside_the_mask_does_not_count() -> None:
    a, b = features(1), features(1)
    for level in b:
        level[:, :, :, level.shape[3] // 2 :] *= -1
    mask = torch.zeros(2, 1, 16, 16)
    mask[:, :, :, :8] = 1
    assert weighted_feature_distance(a, b, HEADS, mask).tolist() == [0.0, 0.0]
    assert float(weighted_feature_distance(a, b, HEADS, 1 - mask).min()) > 0.1


def test_features_have_unit_length() -> None:
    lengths = features(3)[0].square().sum(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))


def test_lpips_without_its_package_explains_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(MissingExtraError, match="pip install --no-deps lpips"):
        Lpips()


def lpips_or_skip() -> Lpips:
    try:
        return Lpips()
    except (BundleError, MissingExtraError) as error:
        pytest.skip(f"needs LPIPS: {error}")


def test_lpips_equals_its_package() -> None:
    ours = lpips_or_skip()
    package = pytest.importorskip("lpips", reason="needs lpips with its torchvision")
    check_against_the_package(ours, package.LPIPS(net="alex", verbose=False).eval())


def test_lpips_arithmetic_with_a_random_backbone_equals_its_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The package's own heads and arithmetic; the backbone is untrained, torchvision not needed."""
    if find_spec("lpips") is None:
        pytest.skip("needs the package lpips")
    torchvision, models = ModuleType("torchvision"), ModuleType("torchvision.models")
    torchvision.models = models  # type: ignore[attr-defined]
    models.alexnet = lambda **_: SimpleNamespace(features=alexnet_features())  # type: ignore[attr-defined]
    for name in [name for name in sys.modules if name.split(".")[0] in ("lpips", "torchvision")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchvision", torchvision)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    state = {f"features.{name}": t for name, t in alexnet_features().state_dict().items()}
    package = importlib.import_module("lpips").LPIPS(net="alex", pnet_rand=True, verbose=False)
    own = package.net.state_dict()
    package.net.load_state_dict({n: state["features." + n.split(".", 1)[1]] for n in own})
    check_against_the_package(Lpips(backbone=state), package.eval())
    for name in [name for name in sys.modules if name.split(".")[0] == "lpips"]:
        monkeypatch.delitem(sys.modules, name)


def check_against_the_package(ours: Lpips, package: nn.Module) -> None:
    random = torch.Generator().manual_seed(1)
    a, b = (torch.rand(2, 3, 64, 64, generator=random) * 2 - 1 for _ in range(2))
    with torch.no_grad():
        expected = package(a, b).flatten()
    assert float(expected.min()) > 0
    torch.testing.assert_close(ours(a, b), expected, rtol=1e-5, atol=1e-6)


def test_pictures_too_small_for_lpips_are_refused() -> None:
    state = {f"features.{name}": t for name, t in alexnet_features().state_dict().items()}
    network = Lpips(backbone=state, heads=[torch.ones(n) for n in ALEXNET_WIDTHS])
    with pytest.raises(UsageError, match="at least 32 px, found 16 x 16"):
        network(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 16))


def alexnet_features() -> nn.Sequential:
    """AlexNet's convolutions as torchvision numbers them (Krizhevsky 2014)."""
    return nn.Sequential(
        *(nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, 1, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, 1, 1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, 1, 1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(3, 2)),
    )
