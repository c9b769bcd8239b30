"""A random bundle of a few kilobytes, for tests that need a bundle but no faces."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import torch

from sglat.bundles.bundle import Bundle
from sglat.bundles.controls import Controls
from sglat.bundles.manifest import UPPER_ROLE, write_part
from sglat.networks.inverter import Inverter, InverterConfig
from sglat.networks.pose_flow import PoseFlow, PoseFlowConfig
from sglat.networks.stylegan2 import Generator, UpperLayers
from sglat.networks.stylespace import GeneratorConfig

TINY_CONFIG = GeneratorConfig(
    resolution=16,
    channels=(12, 12, 8),
    style_dim=16,
    latent_dim=16,
    mapping_layers=2,
    up_filter="low-resolution",
    noise=False,
)


def make_tiny_bundle(folder: Path, *, name: str = "tiny", seed: int = 0) -> Bundle:
    """Write a random 16 px bundle with generator, inverter, pose flow and controls, and open it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        generator = Generator(TINY_CONFIG)
        inverter_config = InverterConfig(
            resolution=16, num_ws=6, style_dim=16, channels=(8, 8), hidden=8, offset_hidden=8
        )
        inverter = Inverter(inverter_config)
        flow_config = PoseFlowConfig(style_dim=16, rows=3, hidden=(8,), steps=2)
        flow = PoseFlow(flow_config)
        for parameter in flow.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        matrix = torch.randn(32, TINY_CONFIG.style_size)
    controls = Controls(matrix.half(), style_widths=TINY_CONFIG.style_widths)
    tensors, config, hints = controls.to_part()
    parts = (
        ("generator", "stylegan2", generator.state_dict(), TINY_CONFIG.to_json(), {}),
        ("inverter", "embedded_inverter", inverter.state_dict(), asdict(inverter_config), {}),
        ("pose_flow", "embedded_pose_flow", flow.state_dict(), asdict(flow_config), {}),
        ("controls", "controls", tensors, config, hints),
    )
    for role, kind, state, part_config, part_hints in parts:
        stored = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
        write_part(
            folder,
            name=name,
            role=role,
            kind=kind,
            tensors=stored,
            config=part_config,
            hints=part_hints,
            licence="none: random numbers",
            source="random",
        )
    return Bundle(folder)


def add_upper_layers(folder: Path, *, seed: int = 1) -> Bundle:
    """Continue a tiny bundle's generator to 32 and 64 px by random layers, and open it."""
    shape = replace(TINY_CONFIG, resolution=64, channels=(12, 12, 8, 6, 4)).to_json()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = UpperLayers(base=16, **shape)
    tensors = {name: value.half() for name, value in layers.state_dict().items()}
    write_part(
        folder, name=Bundle(folder).name, role=UPPER_ROLE, kind="stylegan2_upper", tensors=tensors,
        config={"base": 16, **shape}, licence="none: random numbers", source="random",
    )  # fmt: skip
    return Bundle(folder)
