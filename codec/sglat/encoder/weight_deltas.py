"""Trainable weight deltas in the coded form: gains, small dense tensors and low-rank factors, the
right ones as cosine transforms of filters.

Tuning changes nothing else, so the decoder gets the tuned weights. Once steps are set, quantization
is part of the forward pass, with a straight-through gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sglat.bitstream.constants import CHUNK_FRAME_BYTES, MAX_SIXTEENTHS
from sglat.bitstream.identity import pack_layer
from sglat.bitstream.records import (
    DeltaLayer,
    DenseDelta,
    GainDelta,
    QuantizedTensor,
    SpectralDelta,
    WeightDelta,
    filter_waves,
)
from sglat.networks.stylegan2 import Generator

_AIM = 0.985  # of the budget: the size still varies after the last change
_LEAST_CHANGE = 0.995
_MOST_GROWTHS = 15  # at once: some budgets are below the size of empty layers
_MOST_INTEGER = 1 << 16  # a budget that this does not fill is not filled
_GAIN_LIMIT = 0.9  # 1 + gain stays positive
_SIDE = 3  # of the filters
_FREQUENCIES = _SIDE * _SIDE


@dataclass(frozen=True, kw_only=True)
class DeltaConfig:
    """Capacity of the weight deltas."""

    ranks: tuple[int, ...] = (4, 4, 8)
    """Rank of each low-rank layer; a reader may stop after any of them."""


def delta_budget(identity_bytes: int) -> int:
    """Return the bytes left for weight deltas beside the latent layers."""
    return max(500, int((identity_bytes - 3_200) * 0.995))


def ranks_within(identity_bytes: int) -> tuple[int, ...]:
    """Return the rank of each low-rank layer at a budget.

    More directions at coarser steps are better than fewer at finer ones, up to a point.
    """
    if identity_bytes >= 400_000:
        return (24, 24, 48)
    if identity_bytes >= 160_000:
        return (16, 16, 32)
    if identity_bytes >= 48_000:
        return (8, 8, 16)
    if identity_bytes >= 20_000:
        return (4, 4, 8)
    return (2, 2) if identity_bytes >= 6_000 else (1,)


class WeightDeltas(nn.Module):
    """Trainable deltas of a generator's synthesis weights, in layers that may be cut off.

    Layer 0 holds gains, biases, ToRGB weights and the constant; layer k the k-th low-rank factors.
    """

    def __init__(self, generator: Generator, config: DeltaConfig, *, above: int = 0) -> None:
        """Start at the generator's own weights.

        Args:
            generator: untuned.
            config: ranks.
            above: resolution up to which weights stay as they are; 0: all may change.
        """
        super().__init__()
        self.config = config
        self.num_layers = 1 + len(config.ranks)
        entries = [e for e in generator.config.style_table if e.resolution > above]
        self.num_entries = len(entries)
        """Layers of the generator that may change: its last ones."""
        places = tuple(f"layers.{entry.index}." for entry in entries)
        self.base = {
            name: value.detach()
            for name, value in generator.named_parameters()
            if ".affine." not in name and not name.startswith("mapping.") and "noise" not in name
            if name.startswith(places) or (name == "const" and not above)
        }
        self.convs = [f"layers.{e.index}.weight" for e in entries if e.kind != "torgb"]
        self.basis = torch.from_numpy(filter_waves(_SIDE, _SIDE)).to(generator.const.device)
        self.values = nn.ParameterDict()
        for name, value in self.base.items():
            if name in self.convs:
                self.values[_key(name, "gain")] = nn.Parameter(value.new_zeros(len(value)))
                for number, rank in enumerate(config.ranks, 1):
                    # started along the gradient before the first step
                    most = min(rank, len(value))  # of a narrow layer: full rank
                    left = value.new_zeros(len(value), most)
                    right = value.new_zeros(_FREQUENCIES, most, value.shape[1])
                    self.values[_key(name, f"left{number}")] = nn.Parameter(left)
                    self.values[_key(name, f"right{number}")] = nn.Parameter(right)
            else:
                self.values[_key(name, "dense")] = nn.Parameter(torch.zeros_like(value))
        self.steps: dict[str, float] = {}
        self.sixteenths: dict[str, list[int]] = {}
        """Steps of a right factor's frequencies, in sixteenths of its step."""

    @torch.no_grad()
    def start_whole(self) -> None:
        """Start the left factors as unit matrices: for ranks as large as the layers are wide."""
        for name in self.convs:
            left = self.values[_key(name, "left1")]
            left.copy_(torch.eye(*left.shape))

    @torch.no_grad()
    def set_change(self, name: str, change: Tensor) -> None:
        """Set the deltas of a weight so that it changes by `change`, of the weight's shape; where
        factors hold it, by the nearest change of their rank (Eckart and Young 1936)."""
        if name not in self.convs:
            self.values[_key(name, "dense")].copy_(change)
            return
        left, sizes, right = torch.linalg.svd(change.flatten(1).cpu(), full_matrices=False)
        waves = right.view(len(sizes), -1, _FREQUENCIES) @ torch.linalg.inv(self.basis.cpu())
        begin = 0
        for number in range(1, self.num_layers):
            factors = self.values[_key(name, f"left{number}")]
            spectrum = self.values[_key(name, f"right{number}")]
            at = slice(begin, begin + factors.shape[1])
            root = sizes[at].sqrt()
            factors[:, : len(root)] = left[:, at] * root
            spectrum[:, : len(root)] = waves[at].permute(2, 0, 1) * root[:, None]
            begin = at.stop

    def squared_gradients(self) -> dict[str, Tensor]:
        """Return the mean squared gradient of each tensor, `[]`, of each frequency of right
        factors, `[9]`."""
        found = {}
        for key, value in self.values.items():
            assert value.grad is not None
            squares = value.grad.square()
            is_spectrum = value.ndim == 3 and ":right" in key
            found[key] = (squares.mean((1, 2)) if is_spectrum else squares.mean()).cpu()
        return found

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return what `restore` needs: arrays by name, and facts in JSON."""
        arrays = {key: value.detach().cpu().numpy() for key, value in self.values.items()}
        return arrays, {"steps": self.steps, "sixteenths": self.sixteenths}

    @torch.no_grad()
    def restore(self, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> None:
        """Set all values and steps to what `state` returned."""
        for key, value in self.values.items():
            value.copy_(torch.from_numpy(arrays[key]))
        self.steps, self.sixteenths = dict(facts["steps"]), dict(facts["sixteenths"])

    def _step(self, key: str) -> Tensor:
        """Return the quantizer step of a tensor, of each of its frequencies if it has any."""
        step = torch.tensor(self.steps[key], device=self.values[key].device)
        if key not in self.sixteenths:
            return step
        return step * torch.tensor(self.sixteenths[key], device=step.device)[:, None, None] / 16

    def quantized(self, key: str) -> Tensor:
        """Return a tensor as the decoder dequantizes it, with a straight-through gradient."""
        value: Tensor = self.values[key]
        if key not in self.steps:
            return value
        step = self._step(key)
        rounded: Tensor = value + ((value / step).round() * step - value).detach()
        return rounded

    def weights(self, *, layers: int | None = None) -> dict[str, Tensor]:
        """Return the generator's tensors with the first `layers` layers applied; all if None."""
        layers = self.num_layers if layers is None else layers
        if layers == 0:
            return {}
        result = {}
        for name, base in self.base.items():
            if name not in self.convs:
                result[name] = base + self.quantized(_key(name, "dense"))
                continue
            gain = self.quantized(_key(name, "gain")).clamp(-_GAIN_LIMIT, _GAIN_LIMIT)
            weight = base * (1 + gain).view(-1, 1, 1, 1)
            chunks = range(1, layers)
            if chunks:
                left = torch.cat([self.quantized(_key(name, f"left{k}")) for k in chunks], 1)
                spectrum = [self.quantized(_key(name, f"right{k}")) for k in chunks]
                right = torch.einsum("fri,ft->rit", torch.cat(spectrum, 1), self.basis).flatten(1)
                weight = torch.addmm(weight.flatten(1), left, right).view(base.shape)
            result[name] = weight
        return result

    @torch.no_grad()
    def start_from_gradients(self, gradients: Mapping[str, Tensor]) -> None:
        """Start the left factors along the leading directions of the loss gradient.

        Low-rank tuning that starts in the span of the first full gradient stays close to full
        tuning for longer than from random factors.
        """
        for name in self.convs:
            gradient = gradients[name].flatten(1)
            left, _, _ = torch.linalg.svd((gradient @ gradient.T).cpu())  # faster there
            start = 0
            for number in range(1, self.num_layers):
                factors = self.values[_key(name, f"left{number}")]
                end = start + factors.shape[1]
                chosen = left[:, start:end]  # fewer where the layer is narrower
                factors[:, : chosen.shape[1]] = chosen
                start = end

    @torch.no_grad()
    def integers(self, key: str) -> Tensor:
        """Return a tensor's integers; zero in a direction whose other factor is all zero."""
        other = _other_half(key)
        return self._used(self._rounded(key), None if other is None else self._rounded(other))

    @staticmethod
    def _used(integers: Tensor, other: Tensor | None) -> Tensor:
        if other is None:
            return integers
        half = other != 0
        is_used = half.any(0) if half.ndim == 2 else half.any(0).any(1)
        kept: Tensor = integers * (is_used if integers.ndim == 2 else is_used[:, None])
        return kept

    def _rounded(self, key: str) -> Tensor:
        rounded: Tensor = (self.values[key] / self._step(key)).round()
        return rounded.to(torch.int32)

    @torch.no_grad()
    def bits(self) -> float:
        """Return the zero-order entropy of all integers in bits, an estimate of the coded size."""
        total = 0.0
        rounded = {key: self._rounded(key) for key in self.steps}
        for key, values in rounded.items():
            integers = self._used(values, rounded.get(_other_half(key) or "")).cpu().numpy()
            for part in integers if key in self.sixteenths else (integers,):
                counts = np.unique(part, return_counts=True)[1]
                share = counts / counts.sum()
                total -= float((share * np.log2(share)).sum() * counts.sum())
        return total

    @torch.no_grad()
    def set_steps(self, sensitivity: Mapping[str, Tensor], budget_bits: float) -> None:
        """Choose all steps for a budget.

        At high rate the squared picture error of a tensor is sensitivity · step² / 12 a value, so
        the best steps at equal slope are proportional to sensitivity ** -1/2; one factor meets the
        budget.

        Args:
            sensitivity: mean squared picture gradient of each tensor's values, `[]`, or of those of
                each frequency, `[9]`.
            budget_bits: most bits for all integers.
        """
        wanted = {key: value.clamp_min(1e-20) ** -0.5 for key, value in sensitivity.items()}
        least = {key: float(value.min()) for key, value in wanted.items()}
        self.sixteenths = {
            key: [_sixteenths(float(step), least[key]) for step in value]
            for key, value in wanted.items()
            if value.ndim
        }
        low, high = 1e-6, 1e3
        for _ in range(40):
            factor = (low * high) ** 0.5
            self.steps = {key: self._bounded(key, factor * least[key]) for key in self.values}
            if self.bits() > budget_bits:
                low = factor
            else:
                high = factor
        self.steps = {key: self._bounded(key, high * least[key]) for key in self.values}

    def _bounded(self, key: str, step: float) -> float:
        """Return a step no finer than the integers' range allows."""
        least = float(self.values[key].detach().abs().max()) / _MOST_INTEGER
        return float(np.float32(max(step, least)))

    def coded_bits(self) -> int:
        """Return the size of the layers in a file, in bits."""
        layers = enumerate(self.to_layers(), start=1)
        return 8 * sum(layer_size(number, layer) for number, layer in layers)

    def fits(self, budget_bits: float, growth: float) -> bool:
        """Return whether the layers fit a budget, now or with all steps multiplied by `growth`."""
        if self.coded_bits() <= budget_bits:
            return True
        steps = self.steps
        self.scale_steps(growth)
        has_room = self.coded_bits() <= budget_bits
        self.steps = steps
        return has_room

    def keep_near(self, budget_bits: float) -> None:
        """Scale all steps by a few percent to keep the coded size near the budget.

        Each change of the steps rounds all values anew and undoes some of the tuning, so changes
        are small and end while the learning rate is still high.
        """
        change = self.coded_bits() / (_AIM * budget_bits)
        if change > 1 / _AIM or change < _LEAST_CHANGE:
            self.scale_steps(min(max(change, 0.98), 1.03))

    def keep_within(self, budget_bits: float) -> None:
        """Scale all steps up until the integers fit the budget.

        Called during tuning, so that none have to grow after it.
        """
        for growth in growths(_MOST_GROWTHS):
            if self.coded_bits() <= budget_bits:
                break
            self.scale_steps(growth)

    def scale_steps(self, factor: float) -> None:
        """Multiply all quantizer steps."""
        self.steps = {key: self._bounded(key, step * factor) for key, step in self.steps.items()}

    @torch.no_grad()
    def to_layers(self) -> tuple[DeltaLayer, ...]:
        """Return the deltas as records of the file, layer by layer."""
        layers = []
        for number in range(self.num_layers):
            deltas: list[WeightDelta] = []
            for name, base in self.base.items():
                shape = tuple(base.shape)
                if number == 0 and name not in self.convs:
                    deltas.append(
                        DenseDelta(
                            name=name, values=self._quantized_tensor(_key(name, "dense"), shape)
                        )
                    )
                elif number == 0:
                    gains = self._quantized_tensor(_key(name, "gain"), (shape[0],))
                    deltas.append(GainDelta(name=name, shape=shape, gains=gains))
                elif name in self.convs:
                    deltas.append(self._spectral(name, number))
            layers.append(DeltaLayer(deltas=tuple(deltas)))
        return tuple(layers)

    def _spectral(self, name: str, number: int) -> SpectralDelta:
        outputs, inputs, height, width = self.base[name].shape
        key = _key(name, f"right{number}")
        return SpectralDelta(
            name=name,
            shape=(outputs, inputs, height, width),
            left=self._quantized_tensor(_key(name, f"left{number}")),
            right=self.integers(key).cpu().numpy(),
            base_step=self.steps[key],
            sixteenths=np.array(self.sixteenths[key], np.int32),
        )

    def _quantized_tensor(self, key: str, shape: tuple[int, ...] | None = None) -> QuantizedTensor:
        step = self.steps[key]
        integers = self.integers(key).cpu().numpy()
        if "gain" in key:
            limit = int(_GAIN_LIMIT / step)
            integers = integers.clip(-limit, limit)
        return QuantizedTensor(values=integers.reshape(shape or integers.shape), step=step)


def layer_size(number: int, layer: DeltaLayer) -> int:
    """Return the size of a layer in a file, in bytes."""
    return len(pack_layer(number, layer)) + CHUNK_FRAME_BYTES


def growths(count: int) -> Iterator[float]:
    """Yield factors for steps, small ones first: the excess is small as a rule."""
    growth = 0.002
    for _ in range(count):
        yield 1 + growth
        growth = min(2 * growth, 0.03)


def _sixteenths(step: float, least: float) -> int:
    return min(max(round(16 * step / least), 16), MAX_SIXTEENTHS)


def _other_half(key: str) -> str | None:
    """Return the key of the factor that a factor is multiplied by, or None."""
    for one, other in ((":left", ":right"), (":right", ":left")):
        if one in key:
            return key.replace(one, other)
    return None


def _key(name: str, part: str) -> str:
    """Parameter names may not hold dots."""
    return f"{name}:{part}".replace(".", "/")
