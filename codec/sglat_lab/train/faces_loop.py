"""Training loop of the embedded face networks: seeded, resumable, with a validation log."""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sglat.files import AtomicOutput, atomic_file
from sglat.networks.devices import feature_type
from sglat.networks.embedded_nets import ConvUnit, folded_state

Batch = dict[str, Tensor]
NUM_MEASURED: Final = 192  # pictures whose statistics replace those of the folded normalisation
MUON_RATE: Final = 5.0  # "match_rms_adamw" scales Muon's steps to a root mean square of 0.2 * lr


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """Length and learning rate of a run, and its files."""

    folder: Path
    """Of checkpoint, validation log and exported weights."""
    steps: int
    batch_size: int
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    optimizer: Literal["adamw", "muon"] = "adamw"
    """Muon ignores `weight_decay`."""
    warmup_steps: int = 100
    average: float = 0.998
    """Decay of the averaged weights, which are validated and exported."""
    validate_every: int = 500
    seed: int = 0
    device: str = "cpu"
    start: Path | None = None
    """Initial weights: the averaged ones of another run's checkpoint, or exported ones
    (`.safetensors`)."""
    precision: str = "auto"
    """Of the networks' features: `bf16`, `fp32`, or `auto`: bf16 where the device computes in
    it."""


class Task(Protocol):
    """A network with its training data and loss."""

    name: str

    def build(self) -> nn.Module:
        """Return the untrained network, normalisation unfolded."""

    def batch(self, generator: np.random.Generator, size: int) -> Batch:
        """Return a training batch."""

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the loss and figures for the log."""

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Return figures on the validation split."""


class MuonAdam:
    """`torch.optim.Muon` for matrices and filters, AdamW for all other parameters.

    Muon accepts matrices only: it updates views `[O, I * K * K]` of the filters. Its steps have the
    root mean square of AdamW's at the same learning rate.
    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, lr: float) -> None:
        every = list(parameters)
        self.filters = [p for p in every if p.ndim >= 2]
        matrices = [nn.Parameter(_matrix(p, p).detach()) for p in self.filters]
        self.muon = torch.optim.Muon(
            [{"params": matrices, "scale": MUON_RATE}], lr=MUON_RATE * lr, weight_decay=0.0,
            adjust_lr_fn="match_rms_adamw",
        )  # fmt: skip
        others = [p for p in every if p.ndim < 2]
        self.adam = torch.optim.AdamW([{"params": others}], lr=lr, weight_decay=0.0)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Groups of both; `scale` is a group's learning rate relative to AdamW's."""
        return [*self.muon.param_groups, *self.adam.param_groups]

    def zero_grad(self) -> None:
        """Discard all gradients."""
        for parameter in self.filters:
            parameter.grad = None
        self.adam.zero_grad()

    def step(self) -> None:
        """Take one step."""
        for parameter, matrix in zip(
            self.filters, self.muon.param_groups[0]["params"], strict=True
        ):
            matrix.grad = None if parameter.grad is None else _matrix(parameter.grad, parameter)
        self.muon.step()
        self.adam.step()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of both optimisers."""
        return {"muon": self.muon.state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state of both optimisers."""
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])


def _matrix(value: Tensor, layout: Tensor) -> Tensor:
    """Return `[O, ...]` as `[O, N]`, columns in the order in which `layout` lies in memory."""
    if layout.is_contiguous():
        return value.flatten(1)
    return value.permute(0, 2, 3, 1).flatten(1)  # channels last


Optimizer = torch.optim.AdamW | MuonAdam


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the learning rate of all groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("scale", 1.0)


def fit(task: Task, config: LoopConfig) -> nn.Module:
    """Train a task from its checkpoint, if there is one, and export the averaged weights."""
    config.folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(config.seed)
    device = torch.device(config.device)
    network = task.build()
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = copy.deepcopy(network).eval()
    optimizer = _optimizer(network, config)
    checkpoint_path = config.folder / f"{task.name}.ckpt"
    step = _resume(checkpoint_path, config, task, network, averaged, optimizer)
    log_path = config.folder / f"{task.name}.jsonl"
    began, figures = time.monotonic(), dict[str, float]()
    if step == 0 and config.start is not None:
        _log(log_path, {"step": 0}, task.validate(averaged))
    dtype = feature_type(config.precision, device)
    while step < config.steps:
        set_rate(optimizer, config.learning_rate * _schedule(step, config))
        generator = np.random.default_rng((config.seed, step))
        batch = _on(device, task.batch(generator, config.batch_size))
        network.train()
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss, parts = task.loss(network, batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        step += 1
        _average(averaged, network, min(config.average, (step + 1) / (step + 10)))
        for key, value in parts.items():
            figures[key] = 0.98 * figures.get(key, value) + 0.02 * value
        if step % config.validate_every == 0 or step == config.steps:
            row = {"step": step, "seconds": round(time.monotonic() - began, 1)}
            _log(log_path, row | figures, task.validate(averaged))
            _save(checkpoint_path, step, network, averaged, optimizer)
            export(averaged, config.folder / f"faces_{task.name}.safetensors")
    return averaged


def _optimizer(network: nn.Module, config: LoopConfig) -> Optimizer:
    if config.optimizer == "muon":
        return MuonAdam(network.parameters(), lr=config.learning_rate)
    return torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )


def export(network: nn.Module, path: Path) -> None:
    """Write the folded weights in half precision, under a temporary name first."""
    state = {key: value.half().cpu().contiguous() for key, value in folded_state(network).items()}
    with AtomicOutput(path, force=True) as partial:
        save_file(state, partial)
        partial.chmod(0o644)


def _on(device: torch.device, batch: Batch) -> Batch:
    return {key: value.to(device) for key, value in batch.items()}


def _log(path: Path, row: dict[str, float], validated: dict[str, float]) -> None:
    row = row | {f"val_{key}": value for key, value in validated.items()}
    with path.open("a") as log:
        print(json.dumps({key: round(value, 5) for key, value in row.items()}), file=log)


def _schedule(step: int, config: LoopConfig) -> float:
    """Return the factor of the learning rate: linear warm-up, then a cosine to 2 %."""
    rise = min(1.0, (step + 1) / config.warmup_steps)
    return rise * (0.02 + 0.49 * (1 + math.cos(math.pi * step / config.steps)))


def _average(averaged: nn.Module, network: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for mean, value in zip(
            averaged.state_dict().values(), network.state_dict().values(), strict=True
        ):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - decay)


def _save(
    path: Path, step: int, network: nn.Module, averaged: nn.Module, optimizer: Optimizer
) -> None:
    state = {
        "step": step,
        "network": network.state_dict(),
        "averaged": averaged.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    with atomic_file(path, force=True) as file:
        torch.save(state, file)


def _resume(
    path: Path,
    config: LoopConfig,
    task: Task,
    network: nn.Module,
    averaged: nn.Module,
    optimizer: Optimizer,
) -> int:
    if path.exists():
        state = torch.load(path, map_location=config.device, weights_only=True)
        network.load_state_dict(state["network"])
        averaged.load_state_dict(state["averaged"])
        optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])
    if config.start is not None and config.start.suffix == ".safetensors":
        sample = task.batch(np.random.default_rng((config.seed, 1 << 30)), NUM_MEASURED)
        sample = _on(torch.device(config.device), sample)
        fill_folded(network, load_file(config.start), lambda: task.loss(network, sample))
        averaged.load_state_dict(network.state_dict())
    elif config.start is not None:
        state = torch.load(config.start, map_location=config.device, weights_only=True)
        network.load_state_dict(state["averaged"])
        averaged.load_state_dict(state["averaged"])
    return 0


def fill_folded(
    network: nn.Module, tensors: Mapping[str, Tensor], run: Callable[[], object]
) -> None:
    """Load folded weights into a network with normalisation, without changing their output.

    Each filter is scaled to features of unit deviation on the pictures of `run`; the normalisation
    after it compensates the scale, so that training continues as before folding.

    Args:
        network: changed in place; units without normalisation are copied.
        tensors: exported weights of the same network without normalisation, in any precision.
        run: one forward pass over training pictures.

    Raises:
        RuntimeError: the weights do not fit the network.
    """
    units = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, ConvUnit) and module.norm is not None
    }
    biases = {name: tensors[f"{name}.conv.bias"].float() for name in units}
    own = network.state_dict()
    state = {key: value.float() for key, value in tensors.items() if key in own}
    state |= {key: value for key, value in own.items() if ".norm." in key}
    network.load_state_dict(state)
    hooks = [
        unit.norm.register_forward_pre_hook(_measuring(biases[name]))
        for name, unit in units.items()
        if unit.norm is not None
    ]
    was_training = network.training
    network.eval()
    with torch.no_grad():
        if units:
            run()
        for unit in units.values():
            _scale_to_unit(unit)
    for hook in hooks:
        hook.remove()
    network.train(was_training)


def _measuring(bias: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    """Return a hook that makes a normalisation add `bias` and change nothing else."""

    def measure(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None and norm.running_var is not None
        values = inputs[0].float()
        norm.running_mean.copy_(values.mean((0, 2, 3)))
        norm.running_var.copy_(values.var((0, 2, 3), unbiased=False))
        norm.weight.copy_((norm.running_var + norm.eps).sqrt())
        norm.bias.copy_(norm.running_mean + bias.to(values.device))

    return measure


def _scale_to_unit(unit: ConvUnit) -> None:
    """Scale a filter to features of unit deviation and compensate in its normalisation."""
    norm = unit.norm
    assert norm is not None and norm.running_mean is not None and norm.running_var is not None
    deviation = (norm.running_var + norm.eps).sqrt()
    unit.conv.weight.div_(deviation[:, None, None, None])
    norm.running_mean.div_(deviation)
    norm.running_var.div_(deviation.square())
    norm.weight.copy_(deviation * (norm.running_var + norm.eps).sqrt())
