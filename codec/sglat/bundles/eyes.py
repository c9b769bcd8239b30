"""The face analysis of a bundle: its own networks, and the embedded ones where it has none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sglat.networks.embedded_analysis import ROLES, EmbeddedAnalysis
from sglat.networks.faces import FaceAnalysis, FaceBox, FaceLandmarks

if TYPE_CHECKING:
    from sglat.bundles.bundle import Bundle


class Parser(Protocol):
    """A parsing network such as BiSeNet."""

    def parse(self, crops: Tensor) -> Tensor:
        """Return class probabilities `[N, 19, H, W]`."""


class Embedder(Protocol):
    """An identity network such as ArcFace."""

    def embed(self, crops: Tensor) -> Tensor:
        """Return unit vectors `[N, D]`."""


class MixedAnalysis:
    """Faces found by one analysis; parsed and recognised by other networks."""

    def __init__(
        self, finder: FaceAnalysis, *, parser: Parser | None, embedder: Embedder | None
    ) -> None:
        self.finder = finder
        self.parser: Parser = parser or finder
        self.embedder: Embedder = embedder or finder

    def detect(self, picture: NDArray[np.uint8]) -> list[FaceBox]:
        """See `FaceAnalysis`."""
        return self.finder.detect(picture)

    def landmarks(
        self, picture: NDArray[np.uint8], box: FaceBox, *, previous: FaceLandmarks | None = None
    ) -> FaceLandmarks:
        """See `FaceAnalysis`."""
        return self.finder.landmarks(picture, box, previous=previous)

    def parse(self, crops: Tensor) -> Tensor:
        """See `FaceAnalysis`."""
        return self.parser.parse(crops)

    def embed(self, crops: Tensor) -> Tensor:
        """See `FaceAnalysis`."""
        return self.embedder.embed(crops)


def face_analysis(bundle: Bundle, embedded: Bundle) -> FaceAnalysis:
    """Return the eyes of a bundle.

    Args:
        bundle: may have networks of its own, roles `faces_parsing` and `faces_identity`.
        embedded: the bundle with all the embedded face networks.

    Raises:
        BundleError: a network is missing or damaged.
    """
    networks = {role: embedded.module(f"faces_{role}") for role in ROLES}
    finder = EmbeddedAnalysis(networks=networks, device=bundle.device)
    if bundle is embedded:
        return finder
    own = {role: bundle.has(f"faces_{role}") for role in ("parsing", "identity")}
    parser = cast(Parser, bundle.module("faces_parsing")) if own["parsing"] else None
    embedder = cast(Embedder, bundle.module("faces_identity")) if own["identity"] else None
    return MixedAnalysis(finder, parser=parser, embedder=embedder)
