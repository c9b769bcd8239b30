"""What the file can say: one ID latent, 34 numbers a frame, and weight deltas, rendered with
gradients."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

from sglat.bundles.bundle import Bundle
from sglat.decoder.animate import Person, animate


class Manifold(nn.Module):
    """Renders motion values of one person; the generator's weights may be replaced per call."""

    def __init__(self, bundle: Bundle, ws: Tensor, neutral: Tensor) -> None:
        """Bind a person to the bundle's device, on which motion is then expected too.

        Args:
            bundle: generator, pose flow and controls.
            ws: the ID latent, `[L, D]`.
            neutral: the ID frame's own yaw, pitch (degrees) and controls, `[34]`.
        """
        super().__init__()
        self.bundle = bundle
        self.ws, self.neutral = ws.to(bundle.device), neutral.to(bundle.device)
        # built now: a network cannot be built inside a transformed function
        _ = bundle.generator, bundle.pose_flow, bundle.controls

    def styles(self, motion: Tensor, *, ws: Tensor | None = None) -> list[Tensor]:
        """Return the StyleSpace vectors of motion values `[N, 34]`, as the decoder makes them."""
        return animate(
            Person(ws=self.ws if ws is None else ws, neutral=self.neutral),
            motion,
            generator=self.bundle.generator,
            pose_flow=self.bundle.pose_flow,
            controls=self.bundle.controls,
        )

    def render(
        self,
        motion: Tensor,
        *,
        ws: Tensor | None = None,
        weights: Mapping[str, Tensor] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Return pictures `[N, 3, H, W]` of motion values `[N, 34]`.

        Args:
            motion: yaw and pitch in degrees and the 32 controls.
            ws: another ID latent `[L, D]` than the bound one.
            weights: generator tensors by name that replace the bundle's.
            dtype: of the generator's features; the decoder's is float32.
        """
        return self.synthesize(self.styles(motion, ws=ws), weights, dtype=dtype)

    def synthesize(
        self,
        styles: list[Tensor],
        weights: Mapping[str, Tensor] | None,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Return pictures `[N, 3, H, W]` of StyleSpace vectors, with replaced generator tensors."""
        generator = self.bundle.generator
        if not weights:
            return generator.synthesize(styles, dtype=dtype)
        caller = _Synthesis(generator)
        named = {f"generator.{name}": value for name, value in weights.items()}
        result: Tensor = functional_call(caller, named, (styles, dtype))
        return result


class _Synthesis(nn.Module):
    """Gives `synthesize` the calling form that `functional_call` needs."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, styles: list[Tensor], dtype: torch.dtype) -> Tensor:
        pictures: Tensor = self.generator.synthesize(styles, dtype=dtype)  # type: ignore[operator]
        return pictures
