"""Trainable parts of the embedded bundle, rendered as a file is; initial weights from a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor, nn

from sglat.bundles.bundle import load_bundle
from sglat.bundles.controls import NUM_CONTROLS
from sglat.networks.inverter import Inverter, InverterConfig
from sglat.networks.motion_estimator import MotionEstimator
from sglat.networks.pose_flow import PoseFlow, PoseFlowConfig
from sglat.networks.stylegan2 import Generator, ToRGB
from sglat.networks.stylespace import GeneratorConfig

_ROWS = ("inverter.offsets.weight", "inverter.offsets.bias")


@dataclass(frozen=True, kw_only=True)
class FaceBatch:
    """Aligned faces with their labels, on one device."""

    images: Tensor
    """`[N, 3, H, W]` in [-1, 1]."""
    points: Tensor
    """Landmarks in crop units, `[N, 478, 2]`."""
    blendshapes: Tensor
    """`[N, 52]`."""
    pose_degrees: Tensor
    """Yaw and pitch, `[N, 2]`."""
    is_fine: Tensor
    """Whether the picture has detail at its full resolution, `[N]`; others were enlarged."""

    def __len__(self) -> int:
        return len(self.images)

    def part(self, chosen: slice) -> FaceBatch:
        """Return some of the faces."""
        return FaceBatch(
            **{field.name: getattr(self, field.name)[chosen] for field in fields(self)}
        )

    def tail(self, count: int) -> FaceBatch:
        """Return the last faces."""
        return self.part(slice(-count, None))


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

    def forward(self, identity: FaceBatch, motion: FaceBatch) -> tuple[Tensor, Tensor]:
        """Render the identities of one batch with the motion of another, frame by frame.

        Returns:
            Pictures `[N, 3, H, W]` and the ID latents `[N, L, D]`.
        """
        ws = self.inverter(identity.images)
        return self.move(ws, identity, motion), ws

    def move(
        self,
        ws: Tensor,
        identity: FaceBatch,
        motion: FaceBatch,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Render ID latents `[N, L, D]` of one batch with the motion of another, with features
        in `dtype`."""
        controls = self.controls_of(motion) - self.controls_of(identity)
        styles = self.styles(ws, identity.pose_degrees, motion.pose_degrees, controls)
        return self.generator.synthesize(styles, dtype=dtype)


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
