"""The training loop of the embedded face networks: resumable, seeded, with a validation log."""

from __future__ import annotations

import copy
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sglat.files import AtomicOutput, atomic_file
from sglat.networks.devices import feature_type
from sglat.networks.embedded_blocks import folded_state
from sglat_lab.train.faces_muon import Muon
from sglat_lab.train.faces_start import fill_folded

Batch = dict[str, Tensor]
NUM_MEASURED = 192  # pictures whose statistics stand in for the folded normalisation


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long and how fast to train."""

    folder: Path
    """Checkpoint, validation log and exported weights go here."""
    steps: int
    batch_size: int
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    optimizer: Literal["adamw", "muon"] = "adamw"
    """Muon knows no decay of the weights."""
    warmup_steps: int = 100
    average: float = 0.998
    """Decay of the running mean of the weights, which is what is validated and exported."""
    validate_every: int = 500
    seed: int = 0
    device: str = "cpu"
    start: Path | None = None
    """What to begin with: the checkpoint of an earlier run, of which the averaged weights are
    taken, or exported weights (`.safetensors`)."""
    precision: str = "auto"
    """Of the networks' features: `bf16`, `fp32`, or `auto`: bf16 where the device computes in
    it."""


class Task(Protocol):
    """One network to train."""

    name: str

    def build(self) -> nn.Module:
        """Return the untrained network, normalisation unfolded."""

    def batch(self, generator: np.random.Generator, size: int) -> Batch:
        """Return a training batch."""

    def loss(self, network: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the loss and figures for the log."""

    def validate(self, network: nn.Module) -> dict[str, float]:
        """Return figures on the validation split."""


def fit(task: Task, config: LoopConfig) -> nn.Module:
    """Train a task, going on from its checkpoint where there is one, and export its weights."""
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
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * _schedule(step, config)
        generator = np.random.default_rng((config.seed, step))
        batch = _on(device, task.batch(generator, config.batch_size))
        network.train()
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss, parts = task.loss(network, batch)
        optimizer.zero_grad(set_to_none=True)
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


def _optimizer(network: nn.Module, config: LoopConfig) -> torch.optim.Optimizer:
    if config.optimizer == "muon":
        return Muon(network.parameters(), lr=config.learning_rate)
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
    """Return the share of the learning rate: a short rise, then half a cosine to 2 %."""
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
    path: Path, step: int, network: nn.Module, averaged: nn.Module, optimizer: torch.optim.Optimizer
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
    optimizer: torch.optim.Optimizer,
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
