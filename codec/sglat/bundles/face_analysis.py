"""The face analysis of a bundle: its own networks, and the embedded ones where it has none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

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
    """Detection and landmarks of one analysis; parsing and identity of other networks."""

    def __init__(
        self,
        finder: FaceAnalysis,
        *,
        parser: Parser,
        eval_embedder: Embedder,
        loss_embedder: Embedder,
    ) -> None:
        """Take the networks.

        Args:
            finder: detection and landmarks.
            parser: face parsing, differentiable.
            eval_embedder: identity vectors that people are compared by.
            loss_embedder: identity vectors whose gradient losses follow.
        """
        self.finder = finder
        self.parser = parser
        self.eval_embedder = eval_embedder
        self.loss_embedder = loss_embedder

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
        return self.eval_embedder.embed(crops)

    def embed_for_loss(self, crops: Tensor) -> Tensor:
        """See `FaceAnalysis`."""
        return self.loss_embedder.embed(crops)


def face_analysis(bundle: Bundle, embedded: Bundle, *, pack_root: Path) -> FaceAnalysis:
    """Return the face analysis of a bundle.

    Where insightface and its model pack are present, they detect faces, align landmarks and compare
    identities; the mesh itself is the embedded network's. Parsing and the identity vectors of
    losses are the bundle's own or the embedded ones, since both need a gradient. So the network
    that evaluates identity is not the one that tuning minimises.

    Args:
        bundle: may have networks of its own, roles `faces_parsing` and `faces_identity`.
        embedded: the bundle with all the embedded face networks.
        pack_root: where a fetched insightface pack lies, if it does.

    Raises:
        BundleError: a network is missing or damaged.
    """
    networks = {role: _embedded_kind(bundle, embedded, role) for role in ROLES}
    own = EmbeddedAnalysis(networks=networks, device=bundle.device)
    root = pack_root if is_available(pack_root) else None  # None: insightface's own home
    finder = choose_face_analysis(own, root=root)
    if bundle is embedded and finder is own:
        return own
    parser: Parser = own
    loss_embedder: Embedder = own
    if bundle.has("faces_parsing") and bundle.module("faces_parsing") is not networks["parsing"]:
        parser = cast(Parser, bundle.module("faces_parsing"))
    if bundle.has("faces_identity") and bundle.module("faces_identity") is not networks["identity"]:
        loss_embedder = cast(Embedder, bundle.module("faces_identity"))
    eval_embedder = loss_embedder if finder is own else finder
    return MixedAnalysis(
        finder, parser=parser, eval_embedder=eval_embedder, loss_embedder=loss_embedder
    )


def _embedded_kind(bundle: Bundle, embedded: Bundle, role: str) -> nn.Module:
    """Return a bundle's network if it is of the embedded kind, as in a copy of that bundle; else
    the embedded bundle's."""
    name = f"faces_{role}"
    is_own = bundle.has(name) and bundle.part(name).kind == f"embedded_{role}"
    return (bundle if is_own else embedded).module(name)
