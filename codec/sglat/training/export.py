"""Writes the averaged weights of a training checkpoint as the embedded bundle's parts, half
precision.

`python -m sglat.training.export --checkpoint FILE --out codec/sglat/bundles/mini`
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from sglat.bundles.controls import Controls
from sglat.bundles.manifest import write_part
from sglat.networks.inverter import InverterConfig
from sglat.networks.motion_estimator import GROUPS
from sglat.networks.pose_flow import PoseFlowConfig
from sglat.networks.stylespace import GeneratorConfig
from sglat.training.mini_model import MiniModel

LICENCE: Final = "research only: trained on pictures for research and non-commercial use"
SOURCE: Final = "trained by the sglat authors, see MODEL_CARD.md"


def export(checkpoint: Path, folder: Path, *, sigma: Tensor, name: str = "mini") -> None:
    """Write generator, inverter, pose flow, controls and motion estimator.

    Args:
        checkpoint: file of `sglat.training.mini`.
        folder: bundle folder; its manifest is created or updated.
        sigma: standard deviation of each control over the training frames, `[32]`.
        name: bundle name.
    """
    stored = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model = MiniModel(GeneratorConfig.mini(), InverterConfig(), PoseFlowConfig())
    model.load_state_dict(stored["average"])
    rescale_controls(model, sigma)
    folder.mkdir(parents=True, exist_ok=True)
    parts: tuple[tuple[str, str, torch.nn.Module, dict[str, Any]], ...] = (
        ("generator", "stylegan2", model.generator, model.generator.config.to_json()),
        ("inverter", "embedded_inverter", model.inverter, asdict(model.inverter.config)),
        ("pose_flow", "embedded_pose_flow", model.pose_flow, asdict(model.pose_flow.config)),
        ("estimator", "motion_estimator", model.estimator, {}),
    )
    for role, kind, module, config in parts:
        write_part(
            folder, name=name, role=role, kind=kind, tensors=_half(module.state_dict()),
            config=config, licence=LICENCE, source=SOURCE,
        )  # fmt: skip
    tensors, config, hints = _controls(model).to_part()
    write_part(
        folder, name=name, role="controls", kind="controls", tensors=tensors, config=config,
        hints=hints, licence=LICENCE, source=SOURCE,
    )  # fmt: skip


@torch.no_grad()
def rescale_controls(model: MiniModel, sigma: Tensor) -> None:
    """Bring each control to unit standard deviation without changing any picture."""
    model.directions.mul_(sigma[:, None])
    start = 0
    for group, linear, output in zip(
        GROUPS, model.estimator.linear, model.estimator.output, strict=True
    ):
        for layer in (linear, output):
            assert isinstance(layer, nn.Linear)
            layer.weight.mul_(1 / sigma[start : start + group.controls, None])
        start += group.controls


def _controls(model: MiniModel) -> Controls:
    table = model.generator.config.style_table
    directions = iter(model.directions.detach().split(model.conv_sizes, dim=1))
    layers = {entry.index: next(directions) for entry in table if entry.kind != "torgb"}
    return Controls.from_layers(layers, model.generator.config.style_widths)


def _half(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: value.half().contiguous() if value.is_floating_point() else value
        for name, value in state.items()
    }


@torch.no_grad()
def control_sigma(model: MiniModel, sample: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Return the standard deviation of the estimated controls over labelled frames, `[32]`."""
    values: Tensor = model.estimator(*sample)
    return values.std(0).clamp_min(1e-3)


def main() -> None:
    """Parse the arguments and export."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--packs", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    from sglat.training.batches import FaceSampler
    from sglat.training.data import prepare

    faces = prepare(args.packs, args.cache, 128)
    sampler = FaceSampler(faces, args.packs, device=torch.device("cpu"), seed=0)
    stored = torch.load(args.checkpoint, map_location="cpu", weights_only=True)
    model = MiniModel(GeneratorConfig.mini(), InverterConfig(), PoseFlowConfig())
    model.load_state_dict(stored["average"])
    export(args.checkpoint, args.out, sigma=control_sigma(model, sampler.label_sample()))


if __name__ == "__main__":
    main()
