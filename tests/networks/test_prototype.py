"""Our generator in the `low-resolution` form equals the study prototype."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import numpy as np
import pytest
import torch

from sglat.networks.layouts import from_prototype
from sglat.networks.stylegan2 import Generator
from sglat.networks.stylespace import GeneratorConfig
from tests.support.shared import shared_path
from tests.support.tolerances import PROTOTYPE_ATOL


def load_prototype() -> tuple[ModuleType, dict[str, torch.Tensor]]:
    path = shared_path("prototype/model.py")
    spec = importlib.util.spec_from_file_location("prototype_model", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    arrays = np.load(path.with_name("mini_proto.npz"))
    names = [name for name in arrays.files if name.startswith("Ge.")]
    return module, {name[3:]: torch.from_numpy(arrays[name]).float() for name in names}


@pytest.mark.shared
@pytest.mark.parametrize("resolution", [32, 128])
def test_mini_generator_equals_the_prototype(resolution: int) -> None:
    module, state = load_prototype()
    theirs = module.Generator()
    theirs.load_state_dict(state)
    ours = Generator(GeneratorConfig.mini())
    ours.load_state_dict(from_prototype(state, ours.config))
    ws = torch.randn(2, 12, 256, generator=torch.Generator().manual_seed(3)) * 0.7
    with torch.inference_mode():
        expected = theirs(ws, resolution, torch.float32)
        found = ours(ws, resolution=resolution)
    assert expected.std() > 0.1  # a real picture, not a constant
    torch.testing.assert_close(found, expected, rtol=0, atol=PROTOTYPE_ATOL)


def test_mini_generator_trains() -> None:
    generator = Generator(GeneratorConfig.mini()).to(memory_format=torch.channels_last)
    ws = torch.randn(1, 12, 256, generator=torch.Generator().manual_seed(3), requires_grad=True)
    generator(ws, resolution=32).square().mean().backward()
    used = [layer for layer in generator.layers if layer.entry.resolution <= 32]
    without = [n for layer in used for n, p in layer.named_parameters() if p.grad is None]
    assert without == [] and ws.grad is not None and bool(ws.grad[:, :8].abs().amax(dim=2).all())
