"""The face analysis of a bundle: its own networks, and the embedded ones where it has none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sglat.networks.embedded_analysis import KINDS, EmbeddedAnalysis
from sglat.networks.faces import FaceAnalysis, FaceBox, FaceLandmarks
from sglat.networks.insightface_backend import choose_face_analysis, is_available

OWN_ROLES: Final = ("parsing", "identity")  # for which a bundle may bring another kind of network


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
            eval_embedder: identity vectors for comparing people.
            loss_embedder: identity vectors for losses, differentiable.
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


def face_analysis(
    own: Mapping[str, nn.Module],
    embedded: Mapping[str, nn.Module],
    *,
    device: torch.device,
    pack_root: Path,
) -> FaceAnalysis:
    """Return the face analysis of a bundle.

    Where insightface and its model pack are present, they detect faces, align landmarks and compare
    identities; the mesh itself is the embedded network's. Parsing and the identity vectors of
    losses are the bundle's own or the embedded ones, since both need a gradient. So the network
    that evaluates identity is not the one that tuning minimises.

    Args:
        own: the bundle's face networks by role; of another kind than the embedded ones only in
            `OWN_ROLES`.
        embedded: the embedded bundle's, for the roles that are not in `own` or of another kind.
        device: where they run.
        pack_root: folder of a fetched insightface pack; may be missing.

    Raises:
        BundleError: a network is missing or damaged.
    """
    same = {role: network for role, network in own.items() if isinstance(network, KINDS[role])}
    analysis = EmbeddedAnalysis(networks={**embedded, **same}, device=device)
    root = pack_root if is_available(pack_root) else None  # None: insightface's own home
    finder = choose_face_analysis(analysis, root=root)
    other = {role: network for role, network in own.items() if role not in same}
    if not other and finder is analysis:
        return analysis
    loss_embedder = cast(Embedder, other.get("identity", analysis))
    return MixedAnalysis(
        finder,
        parser=cast(Parser, other.get("parsing", analysis)),
        eval_embedder=loss_embedder if finder is analysis else finder,
        loss_embedder=loss_embedder,
    )
