"""A person ready to be solved and decoded: quantized latent and weights, exactly as in the file."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sglat.bitstream.records import DeltaLayer, Identity, LatentLayer
from sglat.bundles.bundle import Bundle
from sglat.encoder.manifold import Manifold
from sglat.encoder.quantize import latent_layers
from sglat.encoder.tune import Tuned
from sglat.encoder.weight_deltas import growths
from sglat.encoder.write import identity_size
from sglat.errors import UsageError
from sglat.networks.devices import fast_type


@dataclass(frozen=True, kw_only=True)
class TunedPerson:
    """What every frame of a clip is rendered from."""

    identity: Identity
    manifold: Manifold
    weights: dict[str, Tensor]
    """Generator tensors with the dequantized deltas."""

    def render(self, motion: Tensor) -> Tensor:
        """Return pictures `[N, 3, H, W]` of motion values `[N, 34]`, as the decoder will."""
        return self.manifold.render(motion, weights=self.weights)

    def render_quickly(self, motion: Tensor) -> Tensor:
        """Return the pictures of `render` to within a grey level, in the device's fastest type.

        Solving needs no more: on a clip of grimaces it found numbers as good in two thirds of the
        time.
        """
        dtype = fast_type(self.manifold.bundle.device)
        return self.manifold.render(motion, weights=self.weights, dtype=dtype)

    def render_latents(self, ws: Tensor) -> Tensor:
        """Return pictures `[N, 3, H, W]` of W+ latents `[N, L, D]` by the tuned generator."""
        synthesizer = self.manifold.synthesizer
        return synthesizer.synthesize(synthesizer.generator.styles(ws), weights=self.weights)


def person_of(
    bundle: Bundle, tuned: Tuned, *, id_frame: int, stages: int | None = None
) -> TunedPerson:
    """Quantize a tuned person.

    Args:
        bundle: the person's bundle.
        tuned: from tuning; its delta steps are set.
        id_frame: number of the ID frame.
        stages: keep only so many delta layers; all if None.
    """
    mean = bundle.generator.w_avg.detach().cpu().numpy()
    offset = tuned.manifold.ws.cpu().numpy() - mean
    latents, exact = latent_layers(offset)
    deltas = tuned.deltas.to_layers()[:stages] if stages != 0 else ()
    neutral = tuned.manifold.neutral.cpu().numpy().astype(np.float16).astype(np.float32)
    layers: tuple[LatentLayer | DeltaLayer, ...] = (*latents, *deltas)
    identity = Identity(layers=layers, neutral=neutral, id_frame=id_frame)
    ws = torch.from_numpy((exact + mean).astype(np.float32))
    weights = {k: v.detach() for k, v in tuned.deltas.weights(stages=stages).items()}
    return TunedPerson(
        identity=identity,
        manifold=Manifold(bundle, ws, torch.from_numpy(neutral)),
        weights=weights,
    )


def person_within(bundle: Bundle, tuned: Tuned, *, id_frame: int, size_bytes: int) -> TunedPerson:
    """Quantize a tuned person so that the identity fits into a number of bytes.

    The steps chosen during tuning aim below the budget by an estimate. Should the coder need more,
    all steps grow together until it fits; should even that fail, whole layers are left out.

    Raises:
        UsageError: not even the latent fits.
    """
    deltas = tuned.deltas
    if not deltas.steps:  # never tuned: nothing but the latent
        return _without_deltas(bundle, tuned, id_frame, size_bytes)
    for growth in growths(60):
        person = person_of(bundle, tuned, id_frame=id_frame)
        if identity_size(person.identity) <= size_bytes:
            return person
        deltas.scale_steps(growth)
    return _without_deltas(bundle, tuned, id_frame, size_bytes)


def _without_deltas(bundle: Bundle, tuned: Tuned, id_frame: int, size_bytes: int) -> TunedPerson:
    person = person_of(bundle, tuned, id_frame=id_frame, stages=0)
    size = identity_size(person.identity)
    if size > size_bytes:
        raise UsageError(
            "identity-too-small", f"the latent alone needs {size} bytes, {size_bytes} were allowed"
        )
    return person
