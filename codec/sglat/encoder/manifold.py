"""One person's motion rendered with gradients."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sglat.bundles.bundle import Bundle
from sglat.decoder.synthesizer import Person, Synthesizer


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
        self.synthesizer = Synthesizer.of(bundle)

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
        person = Person(ws=self.ws if ws is None else ws, neutral=self.neutral)
        return self.synthesizer.render(person, motion, weights=weights, dtype=dtype)
