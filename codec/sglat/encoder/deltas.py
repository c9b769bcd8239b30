"""Weight deltas in the form in which they are sent: gains, small dense tensors and low-rank
factors.

Tuning changes nothing else, so what is tuned is what is decoded. Quantization is part of the
forward pass once steps are set; the gradient passes straight through it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sglat.bitstream.constants import CHUNK_FRAME_BYTES
from sglat.bitstream.identity import pack_layer
from sglat.bitstream.records import (
    DeltaLayer,
    DenseDelta,
    GainDelta,
    LowRankDelta,
    QuantizedTensor,
    WeightDelta,
)
from sglat.networks.stylegan2 import Generator, StyledConv

_MOST_GROWTHS = 10  # at once: some budgets are below what empty layers take
_GAIN_LIMIT = 0.9  # 1 + gain stays positive


@dataclass(frozen=True, kw_only=True)
class DeltaConfig:
    """Which deltas a person may use."""

    ranks: tuple[int, ...] = (4, 4, 8)
    """Rank of each low-rank layer; a reader may stop after any of them."""


def delta_budget(identity_bytes: int) -> int:
    """Return the bytes left for weight deltas beside the latent layers."""
    return max(500, int((identity_bytes - 3_200) * 0.97))


def ranks_within(identity_bytes: int) -> tuple[int, ...]:
    """Return the low-rank chunks that pay at a budget: more bytes carry more directions.

    Many directions in coarse steps beat few in fine ones until the steps get too coarse: at 64 kB
    on d10, 8, 16 and 32 directions gave 28.0, 28.6 and 28.2 dB.
    """
    if identity_bytes >= 400_000:
        return (16, 16, 32)
    if identity_bytes >= 160_000:
        return (8, 8, 16)
    if identity_bytes >= 48_000:
        return (4, 4, 8)
    if identity_bytes >= 20_000:
        return (2, 2, 4)
    return (1, 1) if identity_bytes >= 6_000 else (1,)


class WeightDeltas(nn.Module):
    """Trainable deltas of a generator's synthesis weights, in layers that may be cut off.

    Stage 0 holds gains, biases, ToRGB weights and the constant; stage k the k-th low-rank chunk.
    """

    def __init__(self, generator: Generator, config: DeltaConfig) -> None:
        super().__init__()
        self.config = config
        self.num_stages = 1 + len(config.ranks)
        self.base = {
            name: value.detach()
            for name, value in generator.named_parameters()
            if ".affine." not in name and not name.startswith("mapping.") and "noise" not in name
        }
        self.convs = [
            f"layers.{index}.weight"
            for index, layer in enumerate(generator.layers)
            if isinstance(layer, StyledConv)
        ]
        self.values = nn.ParameterDict()
        for name, value in self.base.items():
            if name in self.convs:
                self.values[_key(name, "gain")] = nn.Parameter(value.new_zeros(len(value)))
                columns = value[0].numel()
                for stage, rank in enumerate(config.ranks, 1):
                    # pointed along the gradient before the first step
                    left = value.new_zeros(len(value), rank)
                    self.values[_key(name, f"left{stage}")] = nn.Parameter(left)
                    self.values[_key(name, f"right{stage}")] = nn.Parameter(
                        value.new_zeros(rank, columns)
                    )
            else:
                self.values[_key(name, "dense")] = nn.Parameter(torch.zeros_like(value))
        self.steps: dict[str, float] = {}

    def quantized(self, key: str) -> Tensor:
        """Return a tensor as the decoder will see it; the gradient passes straight through."""
        value: Tensor = self.values[key]
        step = self.steps.get(key)
        if step is None:
            return value
        rounded: Tensor = value + ((value / step).round() * step - value).detach()
        return rounded

    def weights(self, *, stages: int | None = None) -> dict[str, Tensor]:
        """Return the generator's tensors with the first `stages` stages applied; all if None."""
        stages = self.num_stages if stages is None else stages
        if stages == 0:
            return {}
        result = {}
        for name, base in self.base.items():
            if name not in self.convs:
                result[name] = base + self.quantized(_key(name, "dense"))
                continue
            gain = self.quantized(_key(name, "gain")).clamp(-_GAIN_LIMIT, _GAIN_LIMIT)
            weight = base * (1 + gain).view(-1, 1, 1, 1)
            chunks = range(1, stages)
            if chunks:
                left = torch.cat([self.quantized(_key(name, f"left{k}")) for k in chunks], 1)
                right = torch.cat([self.quantized(_key(name, f"right{k}")) for k in chunks])
                weight = torch.addmm(weight.flatten(1), left, right).view(base.shape)
            result[name] = weight
        return result

    @torch.no_grad()
    def start_from_gradients(self, gradients: Mapping[str, Tensor]) -> None:
        """Point the left factors along the leading directions of the loss gradient.

        Low-rank factors that start in the span of the first full gradient follow the full tuning
        much longer than random ones.
        """
        for name in self.convs:
            gradient = gradients[name].flatten(1)
            left, _, _ = torch.linalg.svd((gradient @ gradient.T).cpu())  # small: quickest there
            start = 0
            for stage, rank in enumerate(self.config.ranks, 1):
                chosen = left[:, start : start + rank]  # fewer where the layer is narrower
                factors = self.values[_key(name, f"left{stage}")]
                factors[:, : chosen.shape[1]] = chosen
                start += rank

    @torch.no_grad()
    def bits(self) -> float:
        """Return the zero-order entropy of all integers in bits: a cheap stand-in for the coder."""
        total = 0.0
        for key, step in self.steps.items():
            integers = (self.values[key] / step).round().to(torch.int64).flatten()
            counts = torch.unique(integers, return_counts=True)[1].cpu().double()
            share = counts / counts.sum()
            total += float(-(share * share.log2()).sum() * counts.sum())
        return total

    @torch.no_grad()
    def set_steps(self, sensitivity: Mapping[str, float], budget_bits: float) -> None:
        """Choose all steps for a budget.

        At high rate the squared picture error of a tensor is sensitivity · step² / 12 a value, so
        the best steps at equal slope are proportional to sensitivity ** -1/2; one factor meets the
        budget.

        Args:
            sensitivity: mean squared picture gradient of each tensor's values.
            budget_bits: most bits for all integers.
        """
        low, high = 1e-6, 1e3
        for _ in range(40):
            factor = (low * high) ** 0.5
            self.steps = {
                key: float(np.float32(factor / max(sensitivity[key], 1e-20) ** 0.5))
                for key in self.values
            }
            if self.bits() > budget_bits:
                low = factor
            else:
                high = factor
        self.steps = {
            key: float(np.float32(high / max(sensitivity[key], 1e-20) ** 0.5))
            for key in self.values
        }

    def coded_bits(self) -> int:
        """Return what the layers take in a file, in bits."""
        layers = enumerate(self.to_layers(), start=1)
        return 8 * sum(
            len(pack_layer(number, layer)) + CHUNK_FRAME_BYTES for number, layer in layers
        )

    def keep_within(self, budget_bits: float) -> None:
        """Let all steps grow together, or fall a little, as tuning makes the integers dearer or
        cheaper.

        Steps that must grow once tuning is over make the person another than was tuned.
        """
        for _ in range(_MOST_GROWTHS):
            bits = self.coded_bits()
            if bits <= budget_bits:
                break
            self._scale_steps(1.03)
        if bits < 0.98 * budget_bits:
            self._scale_steps(0.99)

    def _scale_steps(self, factor: float) -> None:
        self.steps = {key: float(np.float32(step * factor)) for key, step in self.steps.items()}

    @torch.no_grad()
    def to_layers(self) -> tuple[DeltaLayer, ...]:
        """Return the deltas as records of the file, stage by stage."""
        layers = []
        for stage in range(self.num_stages):
            deltas: list[WeightDelta] = []
            for name, base in self.base.items():
                shape = tuple(base.shape)
                if stage == 0 and name not in self.convs:
                    deltas.append(
                        DenseDelta(name=name, values=self._integers(_key(name, "dense"), shape))
                    )
                elif stage == 0:
                    gains = self._integers(_key(name, "gain"), (shape[0],))
                    deltas.append(GainDelta(name=name, shape=shape, gains=gains))
                elif name in self.convs:
                    deltas.append(
                        LowRankDelta(
                            name=name,
                            shape=shape,
                            left=self._integers(_key(name, f"left{stage}")),
                            right=self._integers(_key(name, f"right{stage}")),
                        )
                    )
            layers.append(DeltaLayer(deltas=tuple(deltas)))
        return tuple(layers)

    def _integers(self, key: str, shape: tuple[int, ...] | None = None) -> QuantizedTensor:
        value, step = self.values[key], self.steps[key]
        integers = (value / step).round().to(torch.int32).cpu().numpy()
        if "gain" in key:
            limit = int(_GAIN_LIMIT / step)
            integers = integers.clip(-limit, limit)
        return QuantizedTensor(values=integers.reshape(shape or integers.shape), step=step)


def _key(name: str, part: str) -> str:
    """Parameter names may not hold dots."""
    return f"{name}:{part}".replace(".", "/")
