"""Face analysis of a bundle: its own networks, the embedded ones, insightface."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sglat.bundles import bundle as bundle_module
from sglat.bundles.bundle import Bundle
from sglat.bundles.manifest import write_part
from sglat.errors import BundleError
from sglat.networks import face_analysis
from sglat.networks.embedded_analysis import KINDS, EmbeddedAnalysis
from sglat.networks.face_analysis import MixedAnalysis
from sglat.networks.published_nets import ArcFace
from tests.bundles.tiny import make_tiny_bundle


@pytest.fixture(autouse=True)
def embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An embedded bundle with untrained face networks, and no insightface anywhere."""
    folder = tmp_path / "embedded"
    make_tiny_bundle(folder)
    torch.manual_seed(0)
    for role, kind in KINDS.items():
        add_face_network(folder, role, f"embedded_{role}", kind().state_dict())
    monkeypatch.setattr(bundle_module, "EMBEDDED_FOLDER", folder)
    monkeypatch.setenv("SGLAT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("INSIGHTFACE_HOME", str(tmp_path / "nowhere"))
    return folder


def add_face_network(folder: Path, role: str, kind: str, state: dict[str, torch.Tensor]) -> None:
    write_part(folder, name="any", role=f"faces_{role}", kind=kind, tensors=state)


def test_the_embedded_bundle_uses_its_own_networks(embedded: Path) -> None:
    bundle = Bundle(embedded)
    assert isinstance(bundle.faces, EmbeddedAnalysis)
    assert bundle.faces.networks["parsing"] is bundle.module("faces_parsing")
    assert bundle.perceptual is bundle.module("faces_perceptual")


def test_a_copy_of_the_embedded_bundle_uses_its_own_networks(
    embedded: Path, tmp_path: Path
) -> None:
    copied = Bundle(Path(shutil.copytree(embedded, tmp_path / "copied")))
    vectors = copied.faces.embed(torch.zeros(1, 3, 128, 128))
    with torch.no_grad():
        own = copied.module("faces_identity")(torch.zeros(1, 3, 128, 128))
    torch.testing.assert_close(vectors, own)


def test_another_bundle_uses_the_embedded_networks(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "other")
    crops = torch.rand(1, 3, 64, 64)
    assert bundle.faces.parse(crops).shape == (1, 19, 64, 64)
    assert bundle.faces.detect(np.zeros((64, 64, 3), np.uint8)) == []
    assert bundle.perceptual(crops, crops).shape == (1,)


def test_a_bundles_own_identity_network_is_preferred_and_has_a_gradient(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path / "other")
    add_face_network(tmp_path / "other", "identity", "arcface", ArcFace().state_dict())
    crops = torch.rand(1, 3, 256, 256, requires_grad=True)
    faces = Bundle(tmp_path / "other").faces
    embedded = faces.embed_for_loss(crops)
    assert embedded.shape == (1, 512)  # the embedded one has fewer
    torch.testing.assert_close(faces.embed(crops), embedded, rtol=0, atol=0)
    embedded.sum().backward()  # type: ignore[no-untyped-call]
    assert crops.grad is not None and bool(crops.grad.abs().sum() > 0)


class Finder:
    """Stands in for insightface."""

    def __init__(self, base: Any) -> None:
        self.base = base

    def detect(self, _: Any) -> list[str]:
        return ["found by insightface"]

    def embed(self, crops: torch.Tensor) -> torch.Tensor:
        return torch.full((len(crops), 2), 0.5)


@pytest.mark.parametrize("has_own_networks", [False, True])
def test_insightface_detects_and_compares_where_present_but_has_no_gradient(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedded: Path, has_own_networks: bool
) -> None:
    folder, size = embedded, 128
    if has_own_networks:
        folder, size = tmp_path / "other", 512
        make_tiny_bundle(folder)
        add_face_network(folder, "identity", "arcface", ArcFace().state_dict())
    monkeypatch.setattr(face_analysis, "choose_finder", lambda base, root, device: Finder(base))
    faces = Bundle(folder).faces
    assert isinstance(faces, MixedAnalysis)
    assert faces.detect(np.zeros((8, 8, 3), np.uint8)) == ["found by insightface"]
    crops = torch.rand(1, 3, 256, 256, requires_grad=True)
    assert faces.embed(crops.detach()).tolist() == [[0.5, 0.5]]
    vectors = faces.embed_for_loss(crops)
    assert vectors.shape == (1, size)
    vectors.sum().backward()  # type: ignore[no-untyped-call]
    assert crops.grad is not None and bool(crops.grad.abs().sum() > 0)
    assert isinstance(getattr(faces.parse, "__self__", None), EmbeddedAnalysis)


def test_a_fetched_pack_is_looked_for_in_the_cache(
    tmp_path: Path, embedded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path | None] = []
    monkeypatch.setattr(face_analysis, "is_available", lambda root: asked.append(root) or True)
    monkeypatch.setattr(
        face_analysis, "choose_finder", lambda base, root, device: asked.append(root) or base
    )
    _ = Bundle(embedded).faces
    assert asked == [tmp_path / "home" / "bundles" / "insightface"] * 2


def test_a_missing_face_network_is_named(embedded: Path) -> None:
    (embedded / "faces_parsing.safetensors").unlink()
    with pytest.raises(BundleError, match=r"faces_parsing\.safetensors"):
        _ = Bundle(embedded).faces
