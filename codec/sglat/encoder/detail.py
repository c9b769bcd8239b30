"""Tuning of the generator's layers above its base resolution, on windows of the source's frames.

The person is tuned and the motion solved at the base resolution, whose features stay as they are
here: what is learned is the detail that they lack. A window of features and its margin suffice for
a step, so that it costs a fraction of a whole picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from sglat.bitstream.records import (
    DeltaLayer,
    Identity,
    LatentLayer,
    QuantizedTensor,
    WeightDelta,
    weight_resolution,
)
from sglat.bundles.bundle import Bundle
from sglat.bundles.manifest import UPPER_ROLE
from sglat.decoder.placement import SIZE
from sglat.decoder.synthesizer import Synthesizer, call_with
from sglat.encoder.align import Alignment
from sglat.encoder.crops import crop_picture
from sglat.encoder.losses import shown_through
from sglat.encoder.optim import FactorAdam, warm_up_and_fall
from sglat.encoder.person import TunedPerson
from sglat.encoder.stages import Stage, Task
from sglat.encoder.start_motion import StartMotion
from sglat.encoder.track import Track
from sglat.encoder.tune import SIZED_EVERY, TuneResult
from sglat.encoder.visible import Visible
from sglat.encoder.weight_deltas import DeltaConfig, WeightDeltas, growths, layer_size
from sglat.encoder.write import identity_size
from sglat.media.reader import Clip, VideoReader
from sglat.networks.devices import fast_type
from sglat.networks.face_points import feature_weights
from sglat.networks.perceptual import PerceptualDistance
from sglat.networks.pixels import from_pixels
from sglat.networks.stylegan2 import Generator

MARGIN: Final = 4
"""Pixels of the base by which the border of a window reaches into its pictures."""
LEAST_FACE: Final = 0.7
"""Side of the source's crops, relative to a resolution, from which it is encoded."""
UPPER_SHARE: Final = 0.25
"""Of the identity's bytes, for the layers above the base resolution."""
LEAST_BYTES: Final = 24_000
"""Of an identity, from which these layers are tuned unless a resolution is asked for."""


def choose_resolution(bundle: Bundle, placement: NDArray[np.float64], wanted: int | None) -> int:
    """Return the resolution that a clip is encoded at.

    Args:
        bundle: its rungs.
        placement: of the face, `[T, 4]`.
        wanted: a user's choice; None: the largest for which the source has detail.

    Raises:
        BundleMismatchError: the bundle does not render the wanted one.
    """
    if wanted is not None:
        return bundle.at(wanted).resolution
    side = face_side(placement)
    lowest, *upper = bundle.rungs
    return max([lowest, *(rung for rung in upper if side >= LEAST_FACE * rung)])


def face_side(placement: NDArray[np.float64]) -> float:
    """Return the median side of the crops `[T, 4]` in pixels of the source."""
    return float(np.median(placement[:, SIZE]))


@dataclass(frozen=True, kw_only=True)
class DetailConfig(Stage[Identity]):
    """How the upper layers are tuned."""

    name = "detail"
    networks = ("synthesizer", UPPER_ROLE, "perceptual")

    resolution: int
    """Of the file."""
    steps: int = 1000
    batch: int = 2
    window: int = 64
    """Side of the compared part of a window, in pixels of the base."""
    rank: int = 32
    """Of the low-rank deltas; narrow layers have full rank."""
    rate_dense: float = 2e-2
    rate_factors: float = 2e-2
    quantize_from: float = 0.6
    """Share of the steps after which weights are quantized in the forward pass."""
    steps_stay_from: float = 0.8
    """Share of the steps after which quantizer steps only grow."""
    weight_l2: float = 2.0
    weight_perceptual: float = 0.6
    feature_weight: float = 3.0
    """Extra weight of eyes and mouth in the pixel terms."""
    identity_bytes: int = 64_000
    """Most bytes of the whole identity."""
    seed: int = 0

    def run(
        self,
        task: Task,
        video: Path | Clip,
        track: Track,
        aligned: Alignment,
        visible: Visible,
        start: StartMotion,
        chosen: list[int],
        tuned: TuneResult,
        person: TunedPerson,
    ) -> Identity:
        """Return the identity with rows and layers of the upper resolutions added."""
        bundle = task.bundle.at(self.resolution)
        identity = extended(person.identity, bundle.num_ws)
        room = self.identity_bytes - identity_size(identity)
        deltas = WeightDeltas(
            bundle.generator, DeltaConfig(ranks=(self.rank,)), above=task.bundle.resolution
        )
        deltas.start_whole()
        store = task.open()
        if not store.is_done:
            frames = _frames(video, aligned.placement, chosen, self.resolution)
            data = Windows.of(self, task, frames, visible, start, chosen, tuned, person)
            ws = Synthesizer.of(bundle).person(identity).ws
            tuner = DetailTuner(
                self, bundle.generator, bundle.perceptual, ws, deltas, data, budget_bits=8 * room
            )
            for step in range(self.steps):
                tuner.step()
                task.tell(step + 1, self.steps)
            store.finish(*tuner.state())
        deltas.restore(*store.result())
        for growth in growths(60):
            layers = upper_layers(deltas)
            sizes = [layer_size(n, layer) for n, layer in enumerate(layers, len(identity.layers))]
            if not deltas.steps or sum(sizes) <= room:
                break
            deltas.scale_steps(growth)
        while layers and sum(sizes) > room:
            layers, sizes = layers[:-1], sizes[:-1]  # a lower resolution fits
        return replace(identity, layers=(*identity.layers, *layers))


def extended(identity: Identity, num_ws: int) -> Identity:
    """Return an identity whose latent has more rows, each the same as its last one."""
    layers: list[LatentLayer | DeltaLayer] = []
    for layer in identity.layers:
        if isinstance(layer, LatentLayer):
            values = layer.latent.values
            more = np.repeat(values[-1:], num_ws - len(values), axis=0)
            latent = QuantizedTensor(values=np.concatenate([values, more]), step=layer.latent.step)
            layers.append(LatentLayer(latent=latent))
        else:
            layers.append(layer)
    return Identity(layers=tuple(layers), neutral=identity.neutral, id_frame=identity.id_frame)


def upper_layers(deltas: WeightDeltas) -> tuple[DeltaLayer, ...]:
    """Return deltas as layers of the file, one for each resolution, ascending."""
    if not deltas.steps:
        return ()
    by_size: dict[int, list[WeightDelta]] = {}
    for layer in deltas.to_layers():
        for delta in layer.deltas:
            by_size.setdefault(weight_resolution(delta.name), []).append(delta)
    return tuple(DeltaLayer(deltas=tuple(by_size[size])) for size in sorted(by_size))


def _frames(
    video: Path | Clip, placement: NDArray[np.float64], chosen: list[int], side: int
) -> Tensor:
    """Return aligned crops of some frames, `[K, 3, side, side]` of uint8."""
    wanted, found = set(chosen), {}
    with VideoReader(video) as reader:
        for frame in reader:
            if frame.index in wanted:
                found[frame.index] = crop_picture(frame.picture, placement[frame.index], side)
                if len(found) == len(wanted):
                    break
    return torch.from_numpy(np.stack([found[index] for index in chosen])).permute(0, 3, 1, 2)


@dataclass(frozen=True, kw_only=True)
class Window:
    """A square of all pictures, in pixels of the base."""

    top: int
    left: int
    side: int
    whole: int
    """Side of the pictures."""

    def of(self, x: Tensor) -> Tensor:
        """Return the window of pictures `[..., S, S]`, at any multiple of the base."""
        scale = x.shape[-1] // self.whole
        rows, columns = (
            slice(start * scale, (start + self.side) * scale) for start in (self.top, self.left)
        )
        return x[..., rows, columns]

    def inner(self, x: Tensor) -> Tensor:
        """Return a window's pictures without the margin that its border reaches into."""
        scale = x.shape[-1] // self.side
        spans = []
        for start in (self.top, self.left):
            first = 0 if start == 0 else MARGIN * scale
            is_end = start + self.side == self.whole
            spans.append(slice(first, x.shape[-1] - (0 if is_end else MARGIN * scale)))
        return x[..., spans[0], spans[1]]


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Frames of a person that windows are cut from, K of them."""

    features: Tensor
    """Of the base, `[K, C, s, s]`, in half precision."""
    images: Tensor
    """`[K, 3, s, s]`."""
    targets: Tensor
    """`[K, 3, S, S]` of uint8."""
    weights: Tensor
    """Of pixels, `[K, 1, S, S]`."""
    masks: Tensor | None
    """`[K, 1, S, S]`, 0 where nothing is compared."""

    @classmethod
    @torch.no_grad()
    def of(
        cls,
        config: DetailConfig,
        task: Task,
        frames: Tensor,
        visible: Visible,
        start: StartMotion,
        chosen: list[int],
        tuned: TuneResult,
        person: TunedPerson,
    ) -> Windows:
        device, side = task.bundle.device, config.resolution
        generator = task.synthesizer.tuned(person.identity.weight_deltas()).generator
        found = []
        for motion in tuned.motion.to(device).split(8):
            styles = person.synthesizer.styles(person.person, motion)
            x, image = generator.rung(styles, dtype=fast_type(device))
            found.append((x.bfloat16(), image))
        features, images = (torch.cat(parts) for parts in zip(*found, strict=True))
        points = torch.from_numpy(start.points[chosen])
        masks = visible.masks(chosen, side)
        return cls(
            features=features, images=images, targets=frames,
            weights=feature_weights(points, side, config.feature_weight), masks=masks,
        )  # fmt: skip

    def cut(self, rows: Tensor, window: Window) -> tuple[Tensor, ...]:
        """Return features, pictures, targets, weights and masks of a window of some frames."""
        device = self.features.device
        target = from_pixels(window.of(self.targets[rows]).permute(0, 2, 3, 1)).to(device)
        weights = window.of(self.weights[rows]).to(device)
        masks = torch.ones_like(weights)
        if self.masks is not None:
            masks = window.of(self.masks[rows]).to(device)
        return window.of(self.features[rows]), window.of(self.images[rows]), target, weights, masks


class DetailTuner:
    """Tunes the deltas of the upper layers step by step.

    Args:
        config: steps and rates.
        generator: at the file's resolution.
        perceptual: distance of pictures.
        ws: latent of the person with all rows, `[L, D]`.
        deltas: of the upper layers.
        data: what windows are cut from.
        budget_bits: most bits for the deltas.
    """

    def __init__(
        self,
        config: DetailConfig,
        generator: Generator,
        perceptual: PerceptualDistance,
        ws: Tensor,
        deltas: WeightDeltas,
        data: Windows,
        *,
        budget_bits: float,
    ) -> None:
        self.config, self.deltas, self.data = config, deltas, data
        self.generator, self.perceptual = generator, perceptual
        self.budget_bits = budget_bits
        self.dtype = fast_type(ws.device)
        with torch.no_grad():
            self.styles = generator.styles(ws[None])[-deltas.num_entries :]
        groups = [
            {
                "params": [value],
                "lr": config.rate_factors if is_factor else config.rate_dense,
                "is_factor": is_factor,
            }
            for key, value in deltas.values.items()
            for is_factor in [key.rsplit(":", 1)[1].startswith(("left", "right"))]
        ]
        self.optimizer = FactorAdam(groups, betas=(0.9, 0.95))
        self.base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.random = torch.Generator().manual_seed(config.seed)
        self.done = 0

    def _window(self) -> Window:
        """Draw a window, more often in the middle than at the rim."""
        whole, side = self.data.images.shape[-1], self.config.window + 2 * MARGIN
        side = min(side, whole)
        places = torch.rand(2, 2, generator=self.random).mean(1) * (whole - side + 2 * MARGIN)
        top, left = (places - MARGIN).round().int().clamp(0, whole - side).tolist()
        return Window(top=top, left=left, side=side, whole=whole)

    def _pictures(self, x: Tensor, image: Tensor) -> list[Tensor]:
        x = x.to(self.dtype).contiguous(memory_format=torch.channels_last)
        styles = [style.expand(len(x), -1) for style in self.styles]
        return call_with(self.generator, self.deltas.weights(), "upper_rungs", x, image, styles)  # type: ignore[no-any-return]

    def step(self) -> float:
        """Take one step and return its loss."""
        config, deltas = self.config, self.deltas
        quantized_from = int(config.steps * config.quantize_from)
        if self.done == quantized_from:
            deltas.set_steps(self._sensitivity(), self.budget_bits)
        elif self.done > quantized_from and self.done % SIZED_EVERY == 0:
            is_late = self.done >= config.steps * config.steps_stay_from
            (deltas.keep_within if is_late else deltas.keep_near)(self.budget_bits)
        factor = warm_up_and_fall(self.done, config.steps, 20)
        for group, rate in zip(self.optimizer.param_groups, self.base_rates, strict=True):
            group["lr"] = rate * factor
        rows = torch.randperm(len(self.data.targets), generator=self.random)[: config.batch]
        window = self._window()
        x, image, target, weights, masks = self.data.cut(rows, window)
        loss = torch.zeros((), device=image.device)
        for picture in self._pictures(x, image):
            scale = target.shape[-1] // picture.shape[-1]
            wanted, weight, mask = (
                window.inner(F.avg_pool2d(part, scale) if scale > 1 else part)
                for part in (target, weights, masks)
            )
            shown = shown_through(window.inner(picture), wanted, mask)
            difference = shown - wanted
            loss = loss + (difference.abs() * weight).mean()
            if scale == 1:
                loss = loss + config.weight_l2 * (difference.square() * weight).mean()
            with torch.no_grad():
                features = self.perceptual.features(wanted)
            distance = self.perceptual.distance(self.perceptual.features(shown), features).mean()
            loss = loss + config.weight_perceptual / scale * distance
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.done += 1
        return float(loss.detach())

    def _sensitivity(self, probes: int = 6) -> dict[str, Tensor]:
        """Return what `WeightDeltas.set_steps` needs, by random signs on windows."""
        totals = {key: torch.zeros(()) for key in self.deltas.values}
        for probe in range(probes):
            rows = torch.tensor([probe % len(self.data.targets)])
            x, image, *_ = self.data.cut(rows, self._window())
            picture = self._pictures(x, image)[-1]
            signs = torch.randint(0, 2, picture.shape, generator=self.random).float() * 2 - 1
            self.deltas.zero_grad(set_to_none=True)
            (picture * signs.to(picture.device)).sum().backward()
            for key, value in self.deltas.squared_gradients().items():
                totals[key] = totals[key] + value / probes
        self.deltas.zero_grad(set_to_none=True)
        return totals

    def state(self) -> tuple[dict[str, NDArray[Any]], Mapping[str, Any]]:
        """Return what `WeightDeltas.restore` needs: arrays by name, and facts in JSON."""
        return self.deltas.state()
