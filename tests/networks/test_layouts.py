"""Checkpoint layouts: both ways, the same picture, and one clear line for every fault."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sglat.errors import BundleError
from sglat.networks.layouts import (
    Layout,
    find_generator,
    names_of,
    read_generator,
)
from sglat.networks.stylegan2 import Generator
from sglat.networks.stylespace import GeneratorConfig
from tests.bundles.toys import write_generator
from tests.networks.test_fast import NARROW, random_generator, random_styles

LAYOUTS: tuple[Layout, ...] = ("rosinality", "nvidia")


def checkpoint(layout: Layout) -> tuple[Generator, dict[str, Tensor]]:
    generator = random_generator(NARROW)
    generator.w_avg.normal_(generator=torch.Generator().manual_seed(1))
    named = write_generator(generator.state_dict(), NARROW, layout)
    container = "g_ema." if layout == "rosinality" else "G_ema."
    return generator, {
        name if name == "latent_avg" else container + name: tensor for name, tensor in named.items()
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_written_checkpoint_reads_back_exactly(layout: Layout) -> None:
    generator, tensors = checkpoint(layout)
    config, state = read_generator(tensors, source="file.pt")
    assert config == NARROW
    assert state.keys() == generator.state_dict().keys()
    assert all(torch.equal(state[n], t) for n, t in generator.state_dict().items())


@torch.inference_mode()
def test_both_layouts_give_the_same_picture() -> None:
    pictures = []
    for layout in LAYOUTS:
        _, tensors = checkpoint(layout)
        config, state = read_generator(tensors, source="file.pt")
        generator = Generator(config)
        generator.load_state_dict(state)
        pictures.append(generator.synthesize(random_styles(generator)))
    assert torch.equal(*pictures)


@pytest.mark.parametrize("layout", LAYOUTS)
@torch.inference_mode()
def test_canonical_to_safetensors_to_network_is_exact(layout: Layout, tmp_path: Path) -> None:
    generator, tensors = checkpoint(layout)
    config, state = read_generator(tensors, source="file.pt")
    save_file(state, tmp_path / "generator.safetensors")
    again = Generator(GeneratorConfig.from_json(config.to_json()))
    again.load_state_dict(load_file(tmp_path / "generator.safetensors"))
    styles = random_styles(generator)
    assert all(torch.equal(a, b) for a, b in zip(styles, random_styles(again), strict=True))
    assert torch.equal(again.synthesize(styles), generator.synthesize(styles))


def test_averaged_weights_win_over_the_ones_in_training() -> None:
    names = ["g.input.input", "g_ema.input.input", "d.convs.0.weight"]
    found = find_generator(names)
    assert found is not None and found.prefix == "g_ema."


def test_a_missing_mean_latent_is_estimated_from_the_mapping_network() -> None:
    generator, tensors = checkpoint("rosinality")
    del tensors["latent_avg"]
    _, state = read_generator(tensors, source="file.pt")
    z = torch.randn(8192, NARROW.latent_dim, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected = generator.mapping(z).mean(dim=0)
    spread = float(expected.std())
    assert float((state["w_avg"] - expected).abs().max()) < 0.1 + 0.1 * spread


def damage_nothing_left(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"weight": torch.zeros(3)}


def damage_missing(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: t for n, t in tensors.items() if not n.endswith("convs.2.activate.bias")}


def damage_shape(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        n: t[..., :-1] if n.endswith("convs.2.activate.bias") else t for n, t in tensors.items()
    }


def damage_unknown(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**tensors, "g_ema.surprise": torch.zeros(2)}


def damage_filter(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**tensors, "g_ema.convs.0.conv.blur.kernel": torch.ones(4, 4) / 16}


def damage_mean(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**tensors, "latent_avg": torch.zeros(5)}


@pytest.mark.parametrize(
    ("damage", "code", "words"),
    [
        (damage_nothing_left, "no-generator", "expected a tensor input.input"),
        (damage_missing, "missing-tensors", "first convs.2.activate.bias"),
        (damage_shape, "wrong-shape", "expected convs.2.activate.bias [8], found [7]"),
        (damage_unknown, "unexpected-tensors", "first surprise [2]"),
        (damage_filter, "wrong-filter", "convs.0.conv.blur.kernel"),
        (damage_mean, "wrong-shape", "expected a mean latent [16], found [5]"),
    ],
)
def test_a_damaged_checkpoint_gives_one_clear_line(damage, code: str, words: str) -> None:  # type: ignore[no-untyped-def]
    _, tensors = checkpoint("rosinality")
    with pytest.raises(BundleError) as caught:
        read_generator(damage(tensors), source="file.pt")
    assert caught.value.code == code
    message = str(caught.value)
    assert "file.pt" in message and words in message and "\n" not in message


def test_a_conditional_generator_is_refused() -> None:
    _, tensors = checkpoint("nvidia")
    tensors["G_ema.mapping.embed.weight"] = torch.zeros(4, 4)
    with pytest.raises(BundleError, match="conditional"):
        read_generator(tensors, source="file.pkl")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_tensor_but_the_mean_latent_has_one_name_in_each_layout(layout: Layout) -> None:
    table = names_of(layout, GeneratorConfig.config_f(1024))
    with torch.device("meta"):
        state = Generator(GeneratorConfig.config_f(1024)).state_dict()
    assert {name.ours for name in table} | {"w_avg"} == set(state)
    assert len({name.theirs for name in table}) == len(table)
    for name in table:
        shape = name.shape if name.our_shape is None else name.our_shape
        assert tuple(state[name.ours].shape) == shape
