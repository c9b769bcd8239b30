"""Settings, free latents and losses of the auto-decoder (see `sglat_lab.train.auto_decoder`).

A person is a clip: a latent, weight deltas if configured, and the reference frame that its motion
is relative to. A clip and its mirror image are two persons.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

import numpy as np
import torch
from torch import Tensor, nn

from sglat.bundles.bundle import load_bundle
from sglat.decoder.synthesizer import synthesize
from sglat.encoder.motion_bank import ExpressionMeter, expression_loss, limited_pose
from sglat.encoder.weight_deltas import DeltaConfig, WeightDeltas
from sglat.networks.devices import fast_type
from sglat.networks.face_points import feature_weights
from sglat.networks.stylegan2 import Generator
from sglat_lab.train.data import FaceBatch, FaceSampler
from sglat_lab.train.mini_model import MiniModel, psnr

FEATURE_WINDOW: Final = (slice(40, 112), slice(28, 100))
"""Rows and columns of an aligned 128 px crop that hold eyes and mouth."""
_INVERTED_FRAMES: Final = 8  # of a clip, whose mean latent a code starts from

Terms = dict[str, Tensor]
"""Terms of a loss by name, scalars."""


@dataclass(frozen=True, kw_only=True)
class AutoDecoderConfig:
    """Settings of one run; stored in its checkpoint."""

    people: str = "codes"
    """`codes`: a free latent for each clip; `inverter`: the inverted reference frame."""
    clips: int = 3
    """Persons in a step."""
    frames: int = 2
    """Frames of each person in a step."""
    stills: int = 2
    """Single pictures in a step, rendered through the inverter."""
    swaps: int = 3
    """Persons in a step that are also rendered with the motion of another."""
    measured_every: int = 1
    """Steps from one in which expression is measured and persons are swapped to the next; the
    weights of these terms count for all steps between."""
    rank: int = 0
    """Of the low-rank weight deltas of a person; 0: persons differ by their codes alone."""
    delta_share: float = 0.34
    """Share of the persons of a step that are rendered with their deltas."""
    rate_generator: float = 1.5e-3
    rate_directions: float = 2e-3
    rate_motion: float = 5e-4
    """Learning rate of pose flow and motion estimator."""
    rate_inverter: float = 1e-3
    rate_codes: float = 5e-2
    rate_delta_dense: float = 6e-3
    rate_delta_factors: float = 2e-3
    weight_perceptual: float = 0.25
    weight_regions: float = 0.5
    """Of mean absolute error and perceptual distance at eyes and mouth."""
    weight_reading: float = 0.02
    """Of the expression that the landmark network measures, against the target's."""
    weight_swap: float = 0.02
    """Of the expression of a swapped person, against the driver's change."""
    weight_identity: float = 0.05
    """Of the identity cosine of a swapped person."""
    weight_features: float = 4.0
    """Extra pixel weight of eyes and mouth."""
    ema: float = 0.999
    warm_up: int = 50
    seed: int = 1
    total_steps: int = 0
    """Step at which the learning rates end at 2 %; 0: they stay constant."""
    anneal_steps: int = 0
    """Steps of the linear decay before it."""

    def rate(self, step: int) -> float:
        """Return the factor of all learning rates at a step of the whole training."""
        factor = min(1.0, (step + 1) / self.warm_up)
        if self.total_steps and self.anneal_steps:
            factor *= min(1.0, max(0.02, (self.total_steps - step) / self.anneal_steps))
        return factor


def reference_rows(sampler: FaceSampler) -> np.ndarray:
    """Return the row of each clip's frame nearest to its median pose and blendshapes, `[C]`."""
    chosen = []
    for rows in sampler.clips:
        index = torch.from_numpy(rows).to(sampler.device)
        labels = torch.cat([sampler.pose[index] / 10, sampler.blendshapes[index]], 1)
        distance = (labels - labels.median(0).values).square().sum(1)
        chosen.append(rows[int(distance.argmin())])
    return np.array(chosen)


class ClipPeople(nn.Module):
    """Free latents `[L, D]` of all clips and their mirror images, and low-rank weight deltas."""

    def __init__(self, num_clips: int, num_ws: int, style_dim: int) -> None:
        super().__init__()
        self.num_clips = num_clips
        self.codes = nn.ParameterList(torch.zeros(num_ws, style_dim) for _ in range(2 * num_clips))
        self.deltas = nn.ModuleList()
        self.is_pointed: list[bool] = []
        """Whether each person's low-rank factors were started along a gradient."""

    def person(self, clip: int, *, is_mirrored: bool) -> int:
        """Return the number of a clip's person."""
        return clip + self.num_clips * is_mirrored

    @torch.no_grad()
    def start(self, model: MiniModel, sampler: FaceSampler, seed: int) -> None:
        """Set each code to the mean of two latents: the reference frame's and that of 8 frames."""
        random = np.random.default_rng(seed)
        references = reference_rows(sampler)
        for is_mirrored in (False, True):
            for clip, rows in enumerate(sampler.clips):
                some = random.choice(rows, min(_INVERTED_FRAMES, len(rows)), replace=False)
                both = np.concatenate([some, references[clip : clip + 1]])
                flags = torch.full((len(both),), is_mirrored, device=sampler.device)
                ws = model.inverter(sampler.batch(both, mirrored=flags).images)
                code = self.codes[self.person(clip, is_mirrored=is_mirrored)]
                code.copy_((ws[:-1].mean(0) + ws[-1]) / 2)

    def add_deltas(self, generator: Generator, rank: int) -> None:
        """Add weight deltas for every person to a generator trained along with them."""
        shared = dict(generator.named_parameters())
        for _ in self.codes:
            deltas = WeightDeltas(generator, DeltaConfig(ranks=(rank,)))
            deltas.base = {name: shared[name] for name in deltas.base}  # gradients reach these too
            self.deltas.append(deltas)
        self.is_pointed = [False] * len(self.codes)

    def delta_groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return the dense values and the low-rank factors of all persons."""
        dense: list[nn.Parameter] = []
        factors: list[nn.Parameter] = []
        for name, value in self.deltas.named_parameters():
            is_factor = name.rsplit(":", 1)[1].startswith(("left", "right"))
            (factors if is_factor else dense).append(value)
        return dense, factors

    def deltas_of(self, person: int) -> WeightDeltas:
        """Return the weight deltas of a person."""
        return cast(WeightDeltas, self.deltas[person])

    def latents(self, people: list[int]) -> Tensor:
        """Return the codes of some persons, `[N, L, D]`."""
        return torch.stack([self.codes[person] for person in people])


@dataclass(frozen=True, kw_only=True)
class StepBatch:
    """All random choices of a step."""

    people: list[int]
    motion: FaceBatch
    """Frames of the clips, `[N * frames]`."""
    identity: FaceBatch
    """The reference frame of each of them."""
    stills: FaceBatch
    with_deltas: list[int]
    """Places of the persons that are rendered with their weight deltas."""
    motion_crops: Tensor
    """Sampling grids for the landmark network in `motion`, `[N * frames, 128, 128, 2]`."""
    identity_crops: Tensor
    """The same in `identity`."""
    is_measured: bool
    """Whether expression is measured and persons are swapped."""


class PeopleLosses:
    """The two losses of a step: of the clips' frames, and of stills and swaps.

    Args:
        config: weights and counts.
        model: trained.
        people: trained along with it.
        device: of both.
        frozen: copy of the model's generator, which renders with weight deltas while
            another thread renders with the model's own.
    """

    def __init__(
        self,
        config: AutoDecoderConfig,
        model: MiniModel,
        people: ClipPeople,
        *,
        device: torch.device,
        frozen: Generator,
    ) -> None:
        self.config, self.model, self.people, self.device = config, model, people, device
        self.frozen = frozen
        self.dtype = fast_type(device)
        networks = load_bundle("mini", device)
        self.perceptual, self.identity = networks.perceptual, networks.module("faces_identity")
        self.meter = ExpressionMeter(networks.landmarks, seed=config.seed)

    def draw(self, sampler: FaceSampler, references: np.ndarray, step: int = 0) -> StepBatch:
        """Return all random choices of a step.

        Args:
            sampler: training pictures.
            references: row of each clip's reference frame, `[C]`.
            step: its number.
        """
        config, random, device = self.config, sampler.random, self.device
        clips = random.choice(
            len(sampler.clips), config.clips, p=sampler.clip_chance, replace=False
        )
        mirrored = random.random(config.clips) < 0.5
        rows = [random.choice(sampler.clips[clip], config.frames) for clip in clips]
        flags = torch.from_numpy(mirrored.repeat(config.frames)).to(device)
        motion = sampler.batch(np.concatenate(rows), mirrored=flags)
        identity = sampler.batch(references[clips].repeat(config.frames), mirrored=flags)
        singles = random.choice(sampler.stills, config.stills)
        flip = torch.from_numpy(random.random(config.stills) < 0.5).to(device)
        chance = random.random(config.clips) if config.rank else np.ones(config.clips)
        return StepBatch(
            people=[
                self.people.person(int(clip), is_mirrored=bool(flag))
                for clip, flag in zip(clips, mirrored, strict=True)
            ],
            motion=motion,
            identity=identity,
            stills=sampler.batch(singles, mirrored=flip),
            with_deltas=[k for k in range(config.clips) if chance[k] < config.delta_share],
            motion_crops=self.meter.crops(motion.points),
            identity_crops=self.meter.crops(identity.points),
            is_measured=step % config.measured_every == 0,
        )

    def point_factors(self, batch: StepBatch, place: int) -> None:
        """Start a person's low-rank factors along the gradient of its first pictures."""
        person, frames = batch.people[place], self.config.frames
        if self.people.is_pointed[person]:
            return
        model, deltas = self.model, self.people.deltas_of(person)
        chosen = slice(place * frames, (place + 1) * frames)
        motion, identity = batch.motion.part(chosen), batch.identity.part(chosen)
        with torch.no_grad():
            ws = self.people.latents([person]).expand(frames, -1, -1)
            moves = model.controls_of(motion) - model.controls_of(identity)
            styles = model.styles(ws, identity.pose_degrees, motion.pose_degrees, moves)
        difference = model.generator.synthesize(styles, dtype=self.dtype) - motion.images
        loss = difference.abs().mean() + 2 * difference.square().mean()
        gradients = torch.autograd.grad(loss, [deltas.base[name] for name in deltas.convs])
        deltas.start_from_gradients(dict(zip(deltas.convs, gradients, strict=True)))
        self.people.is_pointed[person] = True

    def clips(self, batch: StepBatch) -> tuple[Tensor, Terms]:
        """Return the loss of the clips' frames and its terms."""
        config, model = self.config, self.model
        motion, identity = batch.motion, batch.identity
        ws = self._latents(batch).repeat_interleave(config.frames, 0)
        moves = model.controls_of(motion) - model.controls_of(identity)
        styles = model.styles(ws, identity.pose_degrees, motion.pose_degrees, moves)
        pictures = self._render(batch, styles)
        cost, terms = self._compare(pictures, motion)
        loss = len(motion) / (len(motion) + config.stills) * cost
        if batch.is_measured and config.weight_reading:
            with torch.no_grad():
                target = self.meter.measure(motion.images, batch.motion_crops)
            found = self.meter.measure(pictures, batch.motion_crops)
            terms["reading"] = expression_loss(found, target).mean()
            loss = loss + config.measured_every * config.weight_reading * terms["reading"]
        return loss, {("clips_db" if n == "db" else n): v for n, v in terms.items()}

    def stills_and_swaps(self, batch: StepBatch) -> tuple[Tensor, Terms]:
        """Return the loss of single pictures and of swapped persons, and its terms."""
        config, model = self.config, self.model
        styles = model.generator.styles(self._inverted(batch.stills.images))
        has_swaps = bool(batch.is_measured and config.swaps and config.weight_swap)
        if has_swaps:
            swapped = self._swap_styles(batch)
            styles = [torch.cat(rows) for rows in zip(styles, swapped, strict=True)]
        pictures = model.generator.synthesize(styles, dtype=self.dtype)
        cost, terms = self._compare(pictures[: config.stills], batch.stills)
        loss = config.stills / (len(batch.motion) + config.stills) * cost
        terms = {"stills_db": terms["db"]}
        if has_swaps:
            more, swap_terms = self._swap_loss(pictures[config.stills :], batch)
            loss, terms = loss + config.measured_every * more, terms | swap_terms
        return loss, terms

    def _inverted(self, images: Tensor) -> Tensor:
        if self.dtype == torch.float32:
            return self.model.inverter(images)  # type: ignore[no-any-return]
        with torch.autocast(self.device.type, torch.bfloat16):
            return self.model.inverter(images).float()  # type: ignore[no-any-return]

    def _latents(self, batch: StepBatch) -> Tensor:
        """Return the ID latents of a step's persons, `[N, L, D]`."""
        if self.config.people == "codes":
            return self.people.latents(batch.people)
        return self._inverted(batch.identity.images[:: self.config.frames])

    def _render(self, batch: StepBatch, styles: list[Tensor]) -> Tensor:
        """Return pictures of the clips' frames, `[N * frames, 3, H, W]`, some with deltas."""
        frames, generator = self.config.frames, self.model.generator
        places = range(len(batch.people))
        order = [k for k in places if k not in batch.with_deltas] + batch.with_deltas
        rows = torch.arange(len(styles[0])).view(-1, frames)[order].flatten()
        plain = rows[: len(rows) - frames * len(batch.with_deltas)]
        parts = []
        if len(plain):
            chosen = [style[plain] for style in styles]
            parts.append(generator.synthesize(chosen, dtype=self.dtype))
        for place in batch.with_deltas:
            own = [style[place * frames : (place + 1) * frames] for style in styles]
            deltas = self.people.deltas_of(batch.people[place])
            weights = dict(generator.named_parameters()) | deltas.weights()
            parts.append(synthesize(self.frozen, own, weights=weights, dtype=self.dtype))
        return torch.cat(parts)[rows.argsort()]

    def _compare(self, found: Tensor, batch: FaceBatch) -> tuple[Tensor, Terms]:
        """Return the picture loss of `[N, 3, H, W]` against a batch, and its terms."""
        config, wanted = self.config, batch.images
        weights = feature_weights(batch.points, wanted.shape[-1], config.weight_features)
        difference = found - wanted
        pixels = (difference.abs() * weights).mean() + 2 * (difference.square() * weights).mean()
        bumps = weights - 1
        features = (difference.abs() * bumps).sum((1, 2, 3)) / (3 * bumps.sum((1, 2, 3)))
        distance = self._perceptual(found, wanted)
        rows, columns = FEATURE_WINDOW
        near = self._perceptual(found[..., rows, columns], wanted[..., rows, columns])
        regions = features.mean() + 0.25 * near
        loss = pixels + config.weight_perceptual * distance + config.weight_regions * regions
        return loss, {
            "db": psnr(found.detach(), wanted).mean(), "pixels": pixels, "perceptual": distance,
            "features": features.mean(), "near": near,
        }  # fmt: skip

    def _perceptual(self, found: Tensor, wanted: Tensor) -> Tensor:
        with torch.no_grad():
            target = self.perceptual.features(wanted)
        return self.perceptual.distance(self.perceptual.features(found), target).mean()

    def _swapped(self) -> tuple[list[int], list[int]]:
        """Return the frames of a step that give puppets, and those that give their motion."""
        config = self.config
        puppets = [place * config.frames for place in range(config.swaps)]
        drivers = [((place + 1) % config.clips) * config.frames for place in range(config.swaps)]
        return puppets, drivers

    def _swap_styles(self, batch: StepBatch) -> list[Tensor]:
        """Return StyleSpace vectors of persons of the step with the motion of others of it."""
        model, motion, identity = self.model, batch.motion, batch.identity
        puppets, drivers = self._swapped()
        moves = model.controls_of(motion) - model.controls_of(identity)
        source = identity.pose_degrees[puppets]
        turn = motion.pose_degrees[drivers] - identity.pose_degrees[drivers]
        ws = self._latents(batch)[: len(puppets)]
        return model.styles(ws, source, limited_pose(source + turn), moves[drivers])

    def _swap_loss(self, pictures: Tensor, batch: StepBatch) -> tuple[Tensor, Terms]:
        config, meter = self.config, self.meter
        puppets, drivers = self._swapped()
        crops, still = batch.identity_crops, batch.identity.images
        with torch.no_grad():
            before = meter.measure(still[puppets], crops[puppets])
            resting = meter.measure(still[drivers], crops[drivers])
            driven = meter.measure(batch.motion.images[drivers], batch.motion_crops[drivers])
            identity = self.identity(still[puppets])
        wanted = before.moved(resting, driven)
        swap = expression_loss(meter.measure(pictures, crops[puppets]), wanted).mean()
        lost = 1 - (self.identity(pictures.float()) * identity).sum(1).mean()
        cost = config.weight_swap * swap + config.weight_identity * lost
        return cost, {"swap": swap, "identity": lost}
