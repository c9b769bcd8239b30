"""Every faster way to render gives the reference's picture."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from sglat.networks.stylegan2 import Generator
from sglat.networks.stylegan2_fast import FastConv, FastSynthesis, convolve, transform_filters
from sglat.networks.stylegan2_reference import synthesize_reference
from sglat.networks.stylespace import GeneratorConfig
from tests.support.gpu import require_cuda
from tests.support.tolerances import HALF_PICTURE_ATOL, SYNTHESIS_ATOL, WINOGRAD_ATOL

WIDE = GeneratorConfig(  # wide enough for Winograd's scheme, and for folded styles at 64 px
    resolution=64, channels=(24, 24, 160, 160, 32), style_dim=24, latent_dim=24, mapping_layers=1
)
NARROW = GeneratorConfig(
    resolution=32, channels=(12, 10, 8, 6), style_dim=16, latent_dim=8, mapping_layers=2
)
CONFIGS = {"wide": WIDE, "narrow": NARROW, "mini": GeneratorConfig.mini()}


def random_generator(config: GeneratorConfig) -> Generator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        generator = Generator(config).eval().requires_grad_(False)
        for name, parameter in generator.named_parameters():
            if name.endswith(("noise_strength", "bias")):
                parameter.normal_(std=0.3)
    return generator


def random_styles(generator: Generator, count: int = 2) -> list[Tensor]:
    random = torch.Generator().manual_seed(11)
    shape = (count, generator.config.num_ws, generator.config.style_dim)
    return generator.styles(torch.randn(shape, generator=random))


@pytest.mark.parametrize("name", CONFIGS)
@torch.inference_mode()
def test_trainable_path_equals_the_reference(name: str) -> None:
    generator = random_generator(CONFIGS[name])
    styles = random_styles(generator)
    expected = synthesize_reference(generator, styles)
    torch.testing.assert_close(generator.synthesize(styles), expected, rtol=0, atol=SYNTHESIS_ATOL)


@pytest.mark.parametrize(("name", "count"), [*itertools.product(CONFIGS, (1, 2))])
@torch.inference_mode()
def test_fast_path_equals_the_reference(name: str, count: int) -> None:
    generator = random_generator(CONFIGS[name])
    styles = random_styles(generator, count)
    expected = synthesize_reference(generator, styles)
    found = FastSynthesis(generator)(styles)
    assert float(expected.std()) > 0.3  # a picture with contents
    torch.testing.assert_close(found, expected, rtol=0, atol=SYNTHESIS_ATOL)


@pytest.mark.parametrize("stripe_bytes", [0, 1, 16 << 10, 64 << 10])
@torch.inference_mode()
def test_stripes_of_any_height_give_the_same_picture(stripe_bytes: int) -> None:
    generator = random_generator(WIDE)
    styles = random_styles(generator, 1)
    expected = synthesize_reference(generator, styles)
    found = FastSynthesis(generator, stripe_bytes=stripe_bytes)(styles)
    torch.testing.assert_close(found, expected, rtol=0, atol=SYNTHESIS_ATOL)


def test_the_tested_configs_reach_every_branch_of_the_fast_path() -> None:
    kinds = set()
    for config in CONFIGS.values():
        for layer in FastSynthesis(random_generator(config)).layers:
            if isinstance(layer, FastConv):
                kinds.add((layer.upsamples, layer.transposed, layer.tiled))
    every = {(False, False), (True, True), (True, False)}
    assert {kind[:2] for kind in kinds} == every
    assert {kind for kind in kinds if kind[2]} == {(False, False, True), (True, False, True)}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.inference_mode()
def test_half_precision_stays_close(dtype: torch.dtype) -> None:
    generator = random_generator(NARROW)
    styles = random_styles(generator)
    expected = synthesize_reference(generator, styles)
    difference = (FastSynthesis(generator, dtype=dtype)(styles) - expected).abs().max()
    assert 0 < float(difference) <= HALF_PICTURE_ATOL[dtype]


@pytest.mark.parametrize("name", ["narrow", "wide"])
@torch.inference_mode()
def test_a_lower_resolution_in_bfloat16_is_an_exact_part_of_the_full_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = random_generator(CONFIGS[name])
    styles = random_styles(generator, 1)
    full = FastSynthesis(generator, dtype=torch.bfloat16)
    images: list[Tensor] = []
    block = full._block

    def record(x: Tensor, image: Tensor, *arguments: Any, keep: bool) -> Tensor:
        features = block(x, image, *arguments, keep=keep)
        images.append(image.clone())
        return features

    monkeypatch.setattr(full, "_block", record)
    full(styles)
    lower = generator.up_to(CONFIGS[name].resolution // 2)
    found = FastSynthesis(lower, dtype=torch.bfloat16)(styles[: len(lower.layers)])
    assert torch.equal(found, images[-2])


@torch.inference_mode()
def test_half_precision_survives_huge_styles() -> None:
    generator = random_generator(NARROW)
    styles = [
        style * 1e4 if index != 1 else style for index, style in enumerate(random_styles(generator))
    ]
    styles = [
        style if entry.kind != "torgb" else style / 1e4
        for style, entry in zip(styles, generator.config.style_table, strict=True)
    ]
    assert FastSynthesis(generator, dtype=torch.float16)(styles).isfinite().all()


@pytest.mark.gpu
@torch.inference_mode()
def test_fast_path_equals_the_reference_on_a_gpu() -> None:
    require_cuda()
    generator = random_generator(WIDE)
    styles = random_styles(generator)
    expected = synthesize_reference(generator, styles)
    found = FastSynthesis(generator.cuda())([style.cuda() for style in styles]).cpu()
    torch.testing.assert_close(found, expected, rtol=0, atol=10 * SYNTHESIS_ATOL)


@pytest.mark.parametrize("name", ["narrow", "wide"])
def test_control_flow_is_static_enough_to_export(name: str) -> None:
    generator = random_generator(CONFIGS[name])
    fast = FastSynthesis(generator)
    program = torch.export.export(fast, (random_styles(generator, 1),))
    other = [style * 1.1 for style in random_styles(generator, 1)]
    torch.testing.assert_close(program.module()(other), fast(other), rtol=0, atol=SYNTHESIS_ATOL)


def test_gradients_of_the_trainable_path_equal_the_reference() -> None:
    generator = random_generator(NARROW).requires_grad_(True)
    gradients = []
    for render in (generator.synthesize, lambda styles: synthesize_reference(generator, styles)):
        generator.zero_grad()
        render(random_styles(generator)).square().mean().backward()
        gradients.append([p.grad for p in generator.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 0
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@torch.inference_mode()
def test_winograd_equals_the_direct_convolution() -> None:
    random = torch.Generator().manual_seed(5)
    x = torch.randn(2, 40, 14, 18, generator=random)
    weight = torch.randn(24, 40, 3, 3, generator=random) / (40 * 9) ** 0.5
    found = convolve(x, transform_filters(weight))
    expected = torch.nn.functional.conv2d(x.double(), weight.double()).float()
    torch.testing.assert_close(found, expected, rtol=0, atol=WINOGRAD_ATOL)
