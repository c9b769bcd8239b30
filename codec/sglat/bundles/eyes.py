"""The face analysis of a bundle: its own networks, and the embedded ones where it has none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sglat.networks.embedded_analysis import ROLES, EmbeddedAnalysis
from sglat.networks.faces import FaceAnalysis, FaceBox, FaceLandmarks
from sglat.networks.insightface_backend import choose_face_analysis, is_available

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

    def __init__(self, finder: FaceAnalysis, *, parser: Parser, embedder: Embedder) -> None:
        self.finder = finder
        self.parser = parser
        self.embedder = embedder

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


def face_analysis(bundle: Bundle, embedded: Bundle, *, pack_root: Path) -> FaceAnalysis:
    """Return the eyes of a bundle.

    Faces are found, and their landmarks placed, by insightface where the package and its model pack
    are present; the mesh itself is the embedded network's. Parsing and identity are the bundle's
    own or the embedded ones, never insightface's: losses need their gradients.

    Args:
        bundle: may have networks of its own, roles `faces_parsing` and `faces_identity`.
        embedded: the bundle with all the embedded face networks.
        pack_root: where a fetched insightface pack lies, if it does.

    Raises:
        BundleError: a network is missing or damaged.
    """
    networks = {role: embedded.module(f"faces_{role}") for role in ROLES}
    own = EmbeddedAnalysis(networks=networks, device=bundle.device)
    root = pack_root if is_available(pack_root) else None  # None: insightface's own home
    finder = choose_face_analysis(own, root=root)
    if bundle is embedded and finder is own:
        return own
    parser: Parser = own
    embedder: Embedder = own
    if bundle is not embedded and bundle.has("faces_parsing"):
        parser = cast(Parser, bundle.module("faces_parsing"))
    if bundle is not embedded and bundle.has("faces_identity"):
        embedder = cast(Embedder, bundle.module("faces_identity"))
    return MixedAnalysis(finder, parser=parser, embedder=embedder)
