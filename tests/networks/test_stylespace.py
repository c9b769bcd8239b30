"""One config decides every size; the StyleSpace table follows the paper's numbering."""

from __future__ import annotations

import pytest
import torch

from sglat.errors import BundleError, UsageError
from sglat.networks.stylegan2 import Generator
from sglat.networks.stylespace import GeneratorConfig
from tests.networks.test_fast import NARROW, random_generator, random_styles


def test_config_f_at_1024_has_the_papers_table() -> None:
    config = GeneratorConfig.config_f(1024)
    convolutions = [entry for entry in config.style_table if entry.kind != "torgb"]
    assert config.num_ws == 18 and len(config.style_table) == 26
    assert config.style_size == 9088
    assert sum(entry.channels for entry in convolutions) == 6048
    assert config.style_widths == (512,) * 15 + (256,) * 3 + (128,) * 3 + (64,) * 3 + (32,) * 2


@pytest.mark.parametrize(
    ("index", "resolution", "kind", "ws_index"),
    [(5, 16, "conv_up", 3), (6, 16, "conv", 4), (9, 32, "conv", 6), (17, 256, "conv_up", 11)],
)
def test_paper_layers_are_where_the_paper_says(
    index: int, resolution: int, kind: str, ws_index: int
) -> None:
    entry = GeneratorConfig.config_f(1024).style_table[index]
    assert (entry.resolution, entry.kind, entry.ws_index) == (resolution, kind, ws_index)


def test_config_survives_json() -> None:
    for config in (NARROW, GeneratorConfig.mini(), GeneratorConfig.config_f(256)):
        assert GeneratorConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    "change",
    [
        {"resolution": 100},
        {"resolution": 1 << 20},
        {"resolution": "128"},
        {"channels": [8, 8]},
        {"channels": [8, 8, 8, 0]},
        {"channels": [8, 8, 8, 1 << 30]},
        {"channels": [8, 8, 8, True]},
        {"style_dim": 0},
        {"mapping_layers": -1},
        {"mapping_layers": 2.5},
        {"up_filter": "nearest"},
        {"surprise": 1},
    ],
)
def test_a_broken_config_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(BundleError, match="bad-config"):
        GeneratorConfig.from_json({**NARROW.to_json(), **change})


def test_a_moved_channel_changes_only_what_depends_on_its_layer() -> None:
    generator = random_generator(NARROW)
    styles = random_styles(generator, 1)
    moved = [style.clone() for style in styles]
    moved[-1][:, 2] += 1.0  # last ToRGB: one channel's share of the colours, nothing else
    with torch.inference_mode():
        difference = generator.synthesize(moved) - generator.synthesize(styles)
    assert float(difference.abs().max()) > 0
    plane = difference[0].flatten(1)
    assert int(torch.linalg.matrix_rank(plane, rtol=1e-3)) == 1


def test_lower_resolutions_use_the_lower_layers_only() -> None:
    generator = random_generator(NARROW)
    ws = torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(1))
    assert generator(ws, resolution=8).shape == (2, 3, 8, 8)


def test_wrong_shapes_give_one_clear_line() -> None:
    generator = random_generator(NARROW)
    styles = random_styles(generator)
    for call in (
        lambda: generator.styles(torch.zeros(1, 3, 16)),
        lambda: generator.styles(torch.zeros(1, 16)),
        lambda: generator.synthesize(styles[:-1]),
        lambda: generator.synthesize([*styles[:-1], styles[-1][:, :-1]]),
        lambda: generator.synthesize([]),
    ):
        with pytest.raises(UsageError, match="bad-shape"):
            call()
    with pytest.raises(UsageError, match="bad-resolution"):
        generator(torch.zeros(1, 8, 16), resolution=24)


def test_a_generator_without_mapping_says_so() -> None:
    with torch.device("meta"):
        generator = Generator(GeneratorConfig.mini())
    with pytest.raises(UsageError, match="no-mapping"):
        generator.mapping(torch.zeros(1, 256, device="meta"))


def test_mini_generator_trains() -> None:
    generator = Generator(GeneratorConfig.mini()).to(memory_format=torch.channels_last)
    ws = torch.randn(1, 12, 256, generator=torch.Generator().manual_seed(3), requires_grad=True)
    generator(ws, resolution=32).square().mean().backward()
    used = [layer for layer in generator.layers if layer.entry.resolution <= 32]
    without = [n for layer in used for n, p in layer.named_parameters() if p.grad is None]
    assert without == [] and ws.grad is not None and bool(ws.grad[:, :8].abs().amax(dim=2).all())
