"""The generator equals the public reference implementations on the golden vectors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch

from sglat.networks.layouts import read_generator
from sglat.networks.stylegan2 import Generator
from sglat.networks.stylegan2_fast import FastSynthesis
from tests.networks.golden import GoldenCase, golden_case

pytestmark = pytest.mark.shared


@dataclass(frozen=True, kw_only=True)
class Loaded:
    case: GoldenCase
    generator: Generator
    stride: int


@pytest.fixture(scope="module", params=["stylegan2_rosinality_256", "stylegan2_rosinality_1024"])
def rosinality(request: pytest.FixtureRequest) -> Iterator[Loaded]:
    yield _load(request.param, stride=8 if request.param.endswith("1024") else 4)


@pytest.fixture(scope="module")
def nvidia() -> Iterator[Loaded]:
    yield _load("stylegan2_nvidia_256", stride=4)


def _load(name: str, *, stride: int) -> Loaded:
    case = golden_case(name)
    config, state = read_generator(case.weights(), source=name)
    generator = Generator(config).eval().requires_grad_(False)
    generator.load_state_dict(state)
    return Loaded(case=case, generator=generator, stride=stride)


@torch.inference_mode()
def test_golden_mapping_and_truncation(rosinality: Loaded) -> None:
    case, generator = rosinality.case, rosinality.generator
    w = generator.mapping(case.tensor("z"))
    case.check("w", w)
    case.check("w_truncated", generator.truncate(w, float(case.inputs["truncation"])))


@torch.inference_mode()
def test_golden_style_vectors(rosinality: Loaded) -> None:
    case = rosinality.case
    styles = rosinality.generator.styles(case.tensor("ws"))
    expected = [name for name in case.expected if name.startswith("style_")]
    assert len(styles) == len(expected) > 0
    for index, style in enumerate(styles):
        case.check(f"style_{index:02d}", style)


@torch.inference_mode()
def test_golden_picture_from_ws(rosinality: Loaded) -> None:
    image = rosinality.generator(rosinality.case.tensor("ws"))
    rosinality.case.check_picture("img", image, stride=rosinality.stride)


@pytest.mark.slow
@torch.inference_mode()
def test_golden_pictures_of_moved_style_channels(rosinality: Loaded) -> None:
    """Rendered by the fast path, which so stands beside the originals too."""
    case, generator = rosinality.case, rosinality.generator
    fast = FastSynthesis(generator)
    ws = case.tensor("ws")[:1]
    moves = zip(case.inputs["perturb_layer_channel"], case.inputs["perturb_delta"], strict=True)
    for (layer, channel), delta in moves:
        styles = [style.clone() for style in generator.styles(ws)]
        styles[layer][:, channel] += float(delta)
        key = f"img_style_{layer}_{channel}"
        case.check_picture(key, fast(styles), stride=rosinality.stride)


@torch.inference_mode()
def test_golden_picture_from_truncated_z() -> None:
    loaded = _load("stylegan2_rosinality_256", stride=4)
    case, generator = loaded.case, loaded.generator
    w = generator.mapping(case.tensor("z")[:1])
    truncated = generator.truncate(w, float(case.inputs["truncation"]))
    image = generator(generator.repeat(truncated))
    case.check_picture("img_from_z_truncated", image, stride=4)


def test_golden_style_table(rosinality: Loaded) -> None:
    path = rosinality.case.path / "style_table.json"
    expected = json.loads(path.read_text(encoding="utf-8"))
    names = ("index", "resolution", "kind", "channels", "ws_index")
    found = [{n: getattr(e, n) for n in names} for e in rosinality.generator.config.style_table]
    assert found == [{n: row[n] for n in names} for row in expected]


@torch.inference_mode()
def test_golden_nvidia_mapping_and_truncation(nvidia: Loaded) -> None:
    case, generator = nvidia.case, nvidia.generator
    psi = float(case.inputs["truncation_psi"])
    w = generator.mapping(case.tensor("z"))
    case.check("ws_psi1", w)
    case.check("ws_psi07", generator.truncate(w, psi))


@torch.inference_mode()
def test_golden_nvidia_pictures(nvidia: Loaded) -> None:
    case, generator = nvidia.case, nvidia.generator
    case.check_picture("img", generator(case.tensor("ws")), stride=4)
    w = generator.truncate(
        generator.mapping(case.tensor("z")[:1]), float(case.inputs["truncation_psi"])
    )
    case.check_picture("img_from_z_psi07", generator(generator.repeat(w)), stride=4)


@torch.inference_mode()
def test_golden_nvidia_picture_without_noise(nvidia: Loaded) -> None:
    state = nvidia.generator.state_dict()
    silent = {n: torch.zeros_like(t) if "noise" in n else t for n, t in state.items()}
    generator = Generator(nvidia.generator.config)
    generator.load_state_dict(silent)
    image = generator(nvidia.case.tensor("ws")[:1])
    nvidia.case.check_picture("img_no_noise", image, stride=4)
