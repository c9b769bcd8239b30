"""The tuned person: quantized latent and weights, exactly as in the file."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sglat.bitstream.records import DeltaLayer, Identity, LatentLayer
from sglat.decoder.synthesizer import Person, Synthesizer, synthesize
from sglat.encoder.quantize import latent_layers
from sglat.encoder.stages import Stage, Task
from sglat.encoder.tune import TuneResult
from sglat.encoder.weight_deltas import growths
from sglat.encoder.write import identity_size
from sglat.errors import UsageError
from sglat.networks.devices import fast_type


@dataclass(frozen=True, kw_only=True)
class PersonConfig(Stage["TunedPerson"]):
    """How a tuned person is quantized."""

    name = "person"
    phase = "tune"
    networks = ("synthesizer",)

    identity_bytes: int = 64_000
    """Most bytes of the identity in the file."""

    def run(self, task: Task, tuned: TuneResult, chosen: list[int]) -> TunedPerson:
        """Return the person of the file; the first of the chosen frames is the ID frame."""
        return person_within(
            task.synthesizer, tuned, id_frame=chosen[0], size_bytes=self.identity_bytes
        )


@dataclass(frozen=True, kw_only=True)
class TunedPerson:
    """An identity, and the renderer of its motion."""

    identity: Identity
    person: Person
    """Dequantized, on the synthesizer's device."""
    synthesizer: Synthesizer
    """Untuned: the deltas are in `weights`."""
    weights: dict[str, Tensor]
    """Generator tensors with the dequantized deltas."""

    def render(self, motion: Tensor) -> Tensor:
        """Return pictures `[N, 3, H, W]` of motion `[N, 34]`, as the decoder does."""
        return self.synthesizer.render(self.person, motion, weights=self.weights)

    def render_fast(self, motion: Tensor) -> Tensor:
        """Return the pictures of `render` to within a grey level, in the device's fastest type.

        Precise enough for solving: on a clip of grimaces it reached the same loss in two thirds of
        the time.
        """
        dtype = fast_type(self.synthesizer.device)
        return self.synthesizer.render(self.person, motion, weights=self.weights, dtype=dtype)

    def render_latents(self, ws: Tensor) -> Tensor:
        """Return pictures `[N, 3, H, W]` of W+ latents `[N, L, D]` by the tuned generator."""
        generator = self.synthesizer.generator
        return synthesize(generator, generator.styles(ws), weights=self.weights)


def quantized_person(
    synthesizer: Synthesizer, tuned: TuneResult, *, id_frame: int, delta_layers: int | None = None
) -> TunedPerson:
    """Quantize a tuned person, whose delta steps are set, with only the first `delta_layers` layers
    of deltas, or all if None; `synthesizer` is untuned."""
    mean = synthesizer.generator.w_avg.detach().cpu().numpy()
    latents, offset = latent_layers(tuned.person.ws.cpu().numpy() - mean)
    deltas = tuned.deltas.to_layers()[:delta_layers] if delta_layers != 0 else ()
    neutral = tuned.person.neutral.cpu().numpy().astype(np.float16).astype(np.float32)
    layers: tuple[LatentLayer | DeltaLayer, ...] = (*latents, *deltas)
    weights = tuned.deltas.weights(layers=delta_layers)
    person = Person(
        ws=torch.from_numpy((offset + mean).astype(np.float32)), neutral=torch.from_numpy(neutral)
    )
    return TunedPerson(
        identity=Identity(layers=layers, neutral=neutral, id_frame=id_frame),
        person=person.to(synthesizer.device),
        synthesizer=synthesizer,
        weights={name: value.detach() for name, value in weights.items()},
    )


def person_within(
    synthesizer: Synthesizer, tuned: TuneResult, *, id_frame: int, size_bytes: int
) -> TunedPerson:
    """Quantize a tuned person so that the identity fits into a number of bytes.

    The steps chosen during tuning aim below the budget by an estimate. Where the coder needs more,
    all steps grow together until it fits; failing that, the deltas are left out.

    Raises:
        UsageError: the latent alone does not fit.
    """
    bare = quantized_person(synthesizer, tuned, id_frame=id_frame, delta_layers=0)
    size = identity_size(bare.identity)
    left = 8 * (size_bytes - size)
    growing = list(growths(60))
    # Without a single step of tuning there are no quantizer steps.
    if tuned.deltas.steps and tuned.deltas.fits(left, math.prod(growing[:-1])):
        for growth in growing:
            if tuned.deltas.coded_bits() <= left:
                return quantized_person(synthesizer, tuned, id_frame=id_frame)
            tuned.deltas.scale_steps(growth)
    if size > size_bytes:
        raise UsageError(
            "identity-too-small", f"the latent alone needs {size} bytes, {size_bytes} were allowed"
        )
    return bare
