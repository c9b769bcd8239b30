"""The parts of the embedded bundle that are trained together, and the picture as the file says
it."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from sglat.bundles.controls import NUM_CONTROLS
from sglat.networks.inverter import Inverter, InverterConfig
from sglat.networks.motion_estimator import MotionEstimator
from sglat.networks.pose_flow import PoseFlow, PoseFlowConfig
from sglat.networks.stylegan2 import Generator
from sglat.networks.stylespace import GeneratorConfig


@dataclass(frozen=True, kw_only=True)
class FaceBatch:
    """Aligned faces with the labels that steer them, all on one device."""

    images: Tensor
    """`[N, 3, H, W]` in [-1, 1]."""
    points: Tensor
    """Landmarks in crop units, `[N, 478, 2]`."""
    blendshapes: Tensor
    """`[N, 52]`."""
    pose_degrees: Tensor
    """Yaw and pitch, `[N, 2]`."""
    is_fine: Tensor
    """Whether the picture was made with all its pixels, `[N]`; others were enlarged."""

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
        """Return the estimated control values `[N, 32]`; only differences mean anything."""
        values: Tensor = self.estimator(batch.points, batch.blendshapes, batch.pose_degrees)
        return values

    def styles(
        self, ws: Tensor, source_degrees: Tensor, target_degrees: Tensor, controls: Tensor
    ) -> list[Tensor]:
        """Return StyleSpace vectors of ID latents turned and moved as a file would say it.

        Args:
            ws: ID latents, `[N, L, D]`.
            source_degrees: yaw and pitch of the ID frames, `[N, 2]`.
            target_degrees: yaw and pitch asked for, `[N, 2]`.
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
        """Render the people of one batch with the motion of another, frame by frame.

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
        """Render ID latents `[N, L, D]` of one batch with the motion of another; features in
        `dtype`."""
        controls = self.controls_of(motion) - self.controls_of(identity)
        styles = self.styles(ws, identity.pose_degrees, motion.pose_degrees, controls)
        return self.generator.synthesize(styles, dtype=dtype)
