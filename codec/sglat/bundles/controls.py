"""The 32 controls: which StyleSpace coordinates a motion value moves, and in what unit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from sglat.bitstream.channels import CONTROL_NAMES
from sglat.errors import BundleError, UsageError

NUM_CONTROLS: Final = 32
# Table 1 itself, as layer:channel of the FFHQ 1024 px generator; layers count ToRGB.
_PAPER_TABLE: Final = (
    ("mouth", 6, (113, 202, 214, 259, 378, 501)),
    ("mouth", 11, (6, 41, 78, 86, 313, 361, 365)),
    ("mouth", 8, (17, 387)),
    ("mouth", 14, (12,)),
    ("mouth", 15, (45,)),
    ("chin", 5, (50, 505)),
    ("chin", 6, (131,)),
    ("chin", 8, (390,)),
    ("eyes", 9, (63,)),
    ("eyes", 11, (257,)),
    ("eyes", 12, (82, 414)),
    ("eyes", 14, (239,)),
    ("eyes", 17, (28,)),
    ("brows", 8, (6, 28)),
    ("brows", 9, (30,)),
    ("brows", 11, (320,)),
    ("gaze", 9, (409,)),
)
PAPER_CHANNELS: Final = tuple(
    (layer, channel) for _, layer, channels in _PAPER_TABLE for channel in channels
)


class Controls:
    """32 directions in StyleSpace and their units.

    A control is a vector over all StyleSpace channels, layers one after the other, ToRGB included.
    Where every vector has a single entry of weight 1, a control is one channel.
    """

    def __init__(
        self,
        matrix: Tensor,
        *,
        style_widths: Sequence[int],
        names: Sequence[str] | None = None,
        sigma: Sequence[float] | None = None,
        step: Sequence[float] | None = None,
        yaw_step_degrees: float = 0.5,
        pitch_step_degrees: float = 0.5,
    ) -> None:
        """Build the controls from their vectors.

        Args:
            matrix: one vector a row, `[32, S]`.
            style_widths: channels of each StyleSpace layer, ToRGB included; S is their sum.
            names: one name a control, in the order of `sglat.bitstream.channels.GROUPS`;
                numbered within the group if None.
            sigma: standard deviation of each value over natural motion; 1 if unknown.
            step: default quantizer step of each value; a quarter of sigma if unknown.
            yaw_step_degrees: default quantizer step of the yaw.
            pitch_step_degrees: default quantizer step of the pitch.
        """
        self.matrix = matrix.detach().to(torch.float32)
        self.style_widths = tuple(style_widths)
        self.names = tuple(CONTROL_NAMES if names is None else names)
        self.sigma = tuple(sigma) if sigma is not None else (1.0,) * NUM_CONTROLS
        self.step = tuple(step) if step is not None else tuple(s / 4 for s in self.sigma)
        self.yaw_step_degrees = yaw_step_degrees
        self.pitch_step_degrees = pitch_step_degrees
        self._check()
        rows, _ = self.matrix.nonzero(as_tuple=True)
        entries = self.matrix[self.matrix != 0]
        self.is_single_channel = len(rows) == NUM_CONTROLS and bool((entries == 1).all())
        self._edits = self._split()

    @classmethod
    def from_channels(
        cls, channels: Sequence[tuple[int, int]], style_widths: Sequence[int], **units: Any
    ) -> Controls:
        """Make each control one (layer, channel); `units` as for the constructor."""
        matrix = torch.zeros(len(channels), sum(style_widths))
        for row, (layer, channel) in enumerate(channels):
            if not (0 <= layer < len(style_widths) and 0 <= channel < style_widths[layer]):
                raise BundleError(
                    "bad-control", f"control {layer}:{channel} is outside this generator"
                )
            matrix[row, sum(style_widths[:layer]) + channel] = 1.0
        units.setdefault("names", [f"{layer}:{channel}" for layer, channel in channels])
        return cls(matrix, style_widths=style_widths, **units)

    @classmethod
    def from_part(
        cls, tensors: Mapping[str, Tensor], config: Mapping[str, Any], hints: Mapping[str, Any]
    ) -> Controls:
        """Read what `to_part` returned."""
        try:
            units = {"names": config["names"], **hints}
            widths = [int(width) for width in config["style_widths"]]
            if "channels" in tensors:
                pairs = [(int(layer), int(channel)) for layer, channel in tensors["channels"]]
                return cls.from_channels(pairs, widths, **units)
            return cls(tensors["matrix"], style_widths=widths, **units)
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError("bad-control", f"incomplete controls: {error!r}") from error

    def to_part(self) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
        """Return tensors and config (both part of the decoder id) and hints (not part of it).

        Single channels are stored as (layer, channel) pairs, vectors as a half-precision matrix.
        """
        if self.is_single_channel:
            tensors = {"channels": torch.tensor(self.channels(), dtype=torch.int32)}
        else:
            tensors = {"matrix": self.matrix.cpu().half()}
        config = {"style_widths": list(self.style_widths), "names": list(self.names)}
        hints = {name: list(v) if isinstance(v, tuple) else v for name, v in self._units().items()}
        return tensors, config, hints

    def fitted(self, style_widths: Sequence[int]) -> Controls:
        """Return the same controls for a generator with fewer or more resolutions.

        Layers beyond those of either are left out; controls do not change layers that they lack.
        """
        if tuple(style_widths) == self.style_widths:
            return self
        matrix = F.pad(self.matrix, (0, sum(style_widths) - self.matrix.shape[1]))
        return Controls(matrix, style_widths=style_widths, names=self.names, **self._units())

    def to(self, device: torch.device | str) -> Controls:
        """Return the same controls on a device."""
        return Controls(
            self.matrix.to(device),
            style_widths=self.style_widths,
            names=self.names,
            **self._units(),
        )

    def channels(self) -> list[tuple[int, int]]:
        """Return the (layer, channel) of each single-channel control."""
        if not self.is_single_channel:
            raise UsageError("not-channels", "these controls are vectors, not single channels")
        pairs = []
        for position in self.matrix.argmax(dim=1).tolist():
            layer = 0
            while position >= self.style_widths[layer]:
                position -= self.style_widths[layer]
                layer += 1
            pairs.append((layer, position))
        return pairs

    def apply(self, styles: Sequence[Tensor], values: Tensor) -> list[Tensor]:
        """Move style vectors along the controls.

        Args:
            styles: one `[N, C]` per StyleSpace layer; a shorter list (lower resolution) leaves
                out the edits of the missing layers.
            values: one value per control in its own unit, `[N, 32]`.

        Returns:
            The edited vectors; layers that no control touches are the same tensors.
        """
        if values.ndim != 2 or values.shape[1] != NUM_CONTROLS:
            raise UsageError(
                "bad-shape", f"expected values [N, {NUM_CONTROLS}], got {list(values.shape)}"
            )
        widths = tuple(style.shape[-1] for style in styles)
        if widths != self.style_widths[: len(widths)]:
            raise UsageError(
                "bad-shape", f"expected styles of widths {self.style_widths}, got {widths}"
            )
        edited = list(styles)
        for edit in self._edits:
            if edit.layer < len(edited):
                edited[edit.layer] = edited[edit.layer] + edit.offset(values)
        return edited

    def _units(self) -> dict[str, Any]:
        return {
            "sigma": self.sigma,
            "step": self.step,
            "yaw_step_degrees": self.yaw_step_degrees,
            "pitch_step_degrees": self.pitch_step_degrees,
        }

    def _split(self) -> tuple[_LayerEdit, ...]:
        """Cut the matrix by layer and keep the layers that are touched."""
        layers = torch.split(self.matrix, list(self.style_widths), dim=1)
        return tuple(
            _LayerEdit(layer, matrix.contiguous(), is_single_channel=self.is_single_channel)
            for layer, matrix in enumerate(layers)
            if bool(matrix.any())
        )

    def _check(self) -> None:
        counts = {len(self.names), len(self.sigma), len(self.step)}
        if counts != {NUM_CONTROLS}:
            raise BundleError(
                "bad-control", f"expected {NUM_CONTROLS} names and units, got {sorted(counts)}"
            )
        units = (*self.sigma, *self.step, self.yaw_step_degrees, self.pitch_step_degrees)
        if not all(math.isfinite(unit) and unit > 0 for unit in units):
            raise BundleError("bad-control", "expected positive sigmas and steps")
        expected = (NUM_CONTROLS, sum(self.style_widths))
        if self.matrix.shape != expected:
            raise BundleError(
                "bad-control",
                f"expected control vectors {list(expected)}, got {list(self.matrix.shape)}",
            )
        if not bool(torch.isfinite(self.matrix).all()):
            raise BundleError("bad-control", "a control vector is not finite")
        if not bool((self.matrix != 0).any(dim=1).all()):
            raise BundleError("bad-control", "a control moves nothing")


class _LayerEdit:
    """Offsets of one StyleSpace layer by the controls."""

    def __init__(self, layer: int, matrix: Tensor, *, is_single_channel: bool) -> None:
        self.layer = layer
        self.matrix = matrix  # [32, C]
        self.is_single_channel = is_single_channel
        self.controls, self.channels = matrix.nonzero(as_tuple=True)

    def offset(self, values: Tensor) -> Tensor:
        """Return this layer's offset `[N, C]` for values `[N, 32]`."""
        if not self.is_single_channel:
            return values @ self.matrix.to(values.dtype)
        # a plain copy: no matrix product, whose precision a device may lower
        offset = values.new_zeros(len(values), self.matrix.shape[1])
        return offset.index_add(1, self.channels, values.index_select(1, self.controls))
