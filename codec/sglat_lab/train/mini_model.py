"""Trainable parts of the embedded bundle, rendered as a file is, and their validation.

Initial weights come from a bundle; validation writes one JSON line of figures and one sheet of
pictures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sglat.bundles.bundle import load_bundle
from sglat.bundles.controls import NUM_CONTROLS
from sglat.networks.inverter import Inverter, InverterConfig
from sglat.networks.motion_estimator import MotionEstimator
from sglat.networks.pixels import to_pixels
from sglat.networks.pose_flow import PoseFlow, PoseFlowConfig
from sglat.networks.stylegan2 import Generator, ToRGB
from sglat.networks.stylespace import GeneratorConfig
from sglat_lab.measure.teachers import MobileFaceIdentity, SqueezePerceptual
from sglat_lab.train.data import FaceBatch, FaceSampler

_ROWS = ("inverter.offsets.weight", "inverter.offsets.bias")


class MiniModel(nn.Module):
    """Generator, inverter, pose flow, controls and motion estimator."""

    def __init__(
        self,
        generator: GeneratorConfig,
        inverter: InverterConfig,
        pose_flow: PoseFlowConfig,
    ) -> None:
        super().__init__()
        self.generator = Generator(generator)
        self.inverter = Inverter(inverter)
        self.pose_flow = PoseFlow(pose_flow)
        self.estimator = MotionEstimator()
        conv_sizes = [entry.channels for entry in generator.style_table if entry.kind != "torgb"]
        self.conv_sizes = conv_sizes
        # one direction a control over all convolution channels; ToRGB styles stay with the identity
        self.directions = nn.Parameter(torch.randn(NUM_CONTROLS, sum(conv_sizes)) * 0.01)

    @classmethod
    def of_size(cls, size: int) -> MiniModel:
        """Return the embedded bundle's parts, not trained, for pictures of `size` pixels."""
        generator = GeneratorConfig.mini(size)
        return cls(generator, InverterConfig(num_ws=generator.num_ws), PoseFlowConfig())

    def controls_of(self, batch: FaceBatch) -> Tensor:
        """Return the estimated control values `[N, 32]`; only differences are defined."""
        values: Tensor = self.estimator(batch.points, batch.blendshapes, batch.pose_degrees)
        return values

    def styles(
        self, ws: Tensor, source_degrees: Tensor, target_degrees: Tensor, controls: Tensor
    ) -> list[Tensor]:
        """Return StyleSpace vectors of ID latents at another pose with control values added.

        Args:
            ws: ID latents, `[N, L, D]`.
            source_degrees: yaw and pitch of the ID frames, `[N, 2]`.
            target_degrees: yaw and pitch to turn to, `[N, 2]`.
            controls: control values relative to the ID frames, `[N, 32]`.
        """
        turned = self.pose_flow.turn(ws, source_degrees, target_degrees)
        return self.moved(self.generator.styles(turned), controls)

    def moved(self, styles: list[Tensor], controls: Tensor) -> list[Tensor]:
        """Return StyleSpace vectors `[N, C]` a layer with control values `[N, 32]` added."""
        offsets = iter((controls @ self.directions).split(self.conv_sizes, dim=1))
        return [
            style if entry.kind == "torgb" else style + next(offsets)
            for style, entry in zip(styles, self.generator.config.style_table, strict=True)
        ]

    def forward(self, identity: FaceBatch, motion: FaceBatch) -> Tensor:
        """Return pictures `[N, 3, H, W]` of one batch's identities with the motion of another."""
        styles = self.moved_styles(self.inverter(identity.images), identity, motion)
        return self.generator.synthesize(styles)

    def moved_styles(self, ws: Tensor, identity: FaceBatch, motion: FaceBatch) -> list[Tensor]:
        """Return StyleSpace vectors of ID latents `[N, L, D]` of one batch with the motion of
        another."""
        controls = self.controls_of(motion) - self.controls_of(identity)
        return self.styles(ws, identity.pose_degrees, motion.pose_degrees, controls)


@torch.no_grad()
def grown(state: Mapping[str, Tensor], model: MiniModel) -> dict[str, Tensor]:
    """Return the weights of a model of a smaller picture, grown to a larger one.

    The grown generator renders what the smaller one did: new ToRGB layers are 0, and new rows of
    the inverter equal the last one. Karras et al. 2018, https://arxiv.org/abs/1710.10196, section
    2, fade new layers in; layers that start at 0 need no schedule.

    Args:
        state: of a `MiniModel` of the same widths.
        model: has the target shapes, and the weights of all other new layers.

    Raises:
        ValueError: the shapes differ in more than the picture's side.
    """
    expected = model.state_dict()
    if left := sorted(set(state) - set(expected)):
        raise ValueError(f"expected no more than {len(expected)} weights, found {left[0]} too")
    result: dict[str, Tensor] = {}
    new = {f"generator.{name}" for name in _new_colours(model.generator, state)}
    for name, wanted in expected.items():
        found = state.get(name)
        if found is None:
            if not name.startswith("generator.layers."):
                raise ValueError(f"expected {name}, found none")
            result[name] = torch.zeros_like(wanted) if name in new else wanted
        elif found.shape == wanted.shape:
            result[name] = found
        elif name in _ROWS:
            width = model.generator.config.style_dim
            more = (len(wanted) - len(found)) // width
            result[name] = torch.cat([found, *[found[-width:]] * more])
        elif name == "directions":
            rest = wanted.shape[1] - found.shape[1]
            result[name] = torch.cat([found, found.new_zeros(len(found), rest)], 1)
        else:
            raise ValueError(
                f"expected {name} of shape {tuple(wanted.shape)}, found {tuple(found.shape)}"
            )
    return result


def _new_colours(generator: Generator, state: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the weights of ToRGB layers that a state does not have."""
    return [
        f"layers.{index}.{part}"
        for index, layer in enumerate(generator.layers)
        for part in ("weight", "bias")
        if isinstance(layer, ToRGB) and f"generator.layers.{index}.weight" not in state
    ]


def load_start(model: MiniModel, folder: Path) -> None:
    """Copy a bundle's parts into a model, grown to its picture; without the mapping network."""
    bundle = load_bundle(folder)
    state = {
        f"{part}.{name}": value
        for part, network in (
            ("generator", bundle.generator),
            ("inverter", bundle.inverter),
            ("pose_flow", bundle.module("pose_flow")),
            ("estimator", bundle.module("estimator")),
        )
        for name, value in network.state_dict().items()
        if not name.startswith("mapping.")
    }
    config = bundle.generator.config
    matrices = bundle.controls.matrix.float().split(list(config.style_widths), dim=1)
    kept = [m for m, e in zip(matrices, config.style_table, strict=True) if e.kind != "torgb"]
    state["directions"] = torch.cat(kept, dim=1)
    model.load_state_dict(grown(state, model))


@torch.no_grad()
def update_average(average: MiniModel, model: MiniModel, decay: float) -> None:
    """Update averaged weights in place; buffers are copied."""
    for mean, value in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)
    for stored, current in zip(average.buffers(), model.buffers(), strict=True):
        stored.copy_(current)


class Trained(Protocol):
    """A training run as validation reads it."""

    sampler: FaceSampler
    average: MiniModel
    state: dict[str, Any]
    out: Path
    perceptual: SqueezePerceptual
    identity: MobileFaceIdentity


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio of images in [-1, 1] in dB, `[N]`."""
    return 10 * torch.log10(4 / (a - b).square().mean((1, 2, 3)).clamp_min(1e-10))


@torch.no_grad()
def validate(trainer: Trained, *, stills: int = 96, pairs: int = 48) -> dict[str, Any]:
    """Measure inversion of stills and motion transfer within unseen clips; write a sheet."""
    sampler, model = trainer.sampler, trainer.average
    rows = sampler.val_stills[:: max(1, len(sampler.val_stills) // stills)]
    faces = sampler.batch(rows)
    inverted = _in_parts(lambda some: model.generator(model.inverter(some.images)), faces)
    record: dict[str, Any] = {
        "step": trainer.state["step"],
        "images": trainer.state["images"],
        "minutes": round(trainer.state["seconds"] / 60, 1),
        **{f"still_{k}": v for k, v in _figures(trainer, inverted, faces.images).items()},
    }
    identity, motion = map(sampler.batch, sampler.val_pairs(pairs))
    moved = _in_parts(model, identity, motion)
    record.update({f"moved_{k}": v for k, v in _figures(trainer, moved, motion.images).items()})
    record["static_psnr"] = round(float(psnr(identity.images, motion.images).mean()), 2)
    print("VALIDATION", json.dumps(record), flush=True)
    rows_of_sheet = [
        faces.images[:12], inverted[:12], identity.images[:12], motion.images[:12], moved[:12],
    ]  # fmt: skip
    write_sheet(trainer.out / f"sheet_{trainer.state['images']:08d}.png", rows_of_sheet)
    return record


def _in_parts(render: Callable[..., Tensor], *batches: FaceBatch) -> Tensor:
    parts = [slice(start, start + 16) for start in range(0, len(batches[0]), 16)]
    pictures = [render(*(batch.part(part) for batch in batches)) for part in parts]
    return torch.cat(pictures).clamp(-1, 1)


def _figures(trainer: Trained, pictures: Tensor, target: Tensor) -> dict[str, float]:
    perceptual, use_heads = trainer.perceptual, trainer.perceptual.heads is not None
    distances, cosines = [], []
    for a, b in zip(pictures.split(16), target.split(16), strict=True):
        distances.append(perceptual(a, b, use_heads=use_heads))
        cosines.append((trainer.identity(a) * trainer.identity(b)).sum(1))
    return {
        "psnr": round(float(psnr(pictures, target).mean()), 3),
        "lpips" if use_heads else "squeeze": round(float(torch.cat(distances).mean()), 4),
        "identity": round(float(torch.cat(cosines).mean()), 3),
    }


def write_sheet(path: Path, rows: list[Tensor]) -> None:
    """Write rows of images `[N, 3, H, W]` in [-1, 1] as one PNG."""
    import cv2

    sheet = torch.cat([torch.cat(list(row.float().cpu()), 2) for row in rows], 1)
    cv2.imwrite(str(path), cv2.cvtColor(to_pixels(sheet[None])[0], cv2.COLOR_RGB2BGR))
