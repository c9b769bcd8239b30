"""Inverter, identity, parsing and pose flow equal the public references on the golden vectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from sglat.networks.inverter import Encoder4Editing
from sglat.networks.layouts import read_e4e, read_generator, read_state, read_styleflow
from sglat.networks.pose_flow import StyleFlow, StyleFlowConfig
from sglat.networks.published_nets import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ArcFace,
    BiSeNet,
    face_of_crop,
)
from sglat.networks.stylegan2 import Generator
from tests.networks.golden import GoldenCase, golden_case

pytestmark = pytest.mark.shared


def signed(picture: Tensor) -> Tensor:
    """uint8 NHWC to float32 NCHW in [-1, 1]."""
    return (picture.float() / 255 - 0.5).div(0.5).permute(0, 3, 1, 2).contiguous()


@dataclass(frozen=True, kw_only=True)
class LoadedE4E:
    case: GoldenCase
    inverter: Encoder4Editing
    generator: Generator


@pytest.fixture(scope="module")
def e4e() -> Iterator[LoadedE4E]:
    """Fill the complete checkpoint once: inverter and the decoder in the same file."""
    case = golden_case("e4e_encoder")
    weights = case.weights()
    inverter_config, inverter_state = read_e4e(weights, source="golden")
    config, state = read_generator(weights, source="golden")
    weights.clear()  # a gigabyte
    inverter = Encoder4Editing(inverter_config).eval().requires_grad_(False)
    inverter.load_state_dict(inverter_state)
    generator = Generator(config).eval().requires_grad_(False)
    generator.load_state_dict(state)
    yield LoadedE4E(case=case, inverter=inverter, generator=generator)


@pytest.mark.slow
@torch.inference_mode()
def test_golden_e4e_features_and_codes(e4e: LoadedE4E) -> None:
    crops = signed(e4e.case.tensor("image_u8"))
    for name, features in zip(
        ("body6", "body20", "body23"), e4e.inverter.trunk(crops), strict=True
    ):
        e4e.case.check(f"{name}_channel_mean", features.mean(dim=(2, 3)))
    offsets = e4e.inverter.offsets(crops)
    e4e.case.check("encoder_out", offsets)
    e4e.case.check("codes", offsets + e4e.inverter.latent_avg)


@pytest.mark.slow
@torch.inference_mode()
def test_golden_e4e_reconstruction_by_the_decoder_in_the_same_file(e4e: LoadedE4E) -> None:
    codes = e4e.inverter(signed(e4e.case.tensor("image_u8"))[:1])
    image = functional.adaptive_avg_pool2d(e4e.generator(codes), 256)
    e4e.case.check("reconstruction_256_sub2", image[:, :, ::2, ::2], output="reconstruction_256")
    flat = image.double().flatten(2)
    statistics = [flat.mean(2), flat.std(2, unbiased=False), flat.amin(2), flat.amax(2)]
    e4e.case.check(
        "reconstruction_256_stats", torch.stack(statistics, dim=2), output="reconstruction_256"
    )


@torch.inference_mode()
def test_golden_arcface_embeddings() -> None:
    case = golden_case("arcface_irse50")
    network = ArcFace().eval()
    network.load_state_dict(read_state(case.weights(), ArcFace, source="golden"))
    case.check("embedding_aligned112", network(signed(case.tensor("aligned112_u8"))))
    crops = signed(case.tensor("face256_u8"))
    case.check("face256_preprocessed", face_of_crop(crops)[:1])
    case.check("embedding_face256", network.embed(crops))


@pytest.mark.slow
@torch.inference_mode()
def test_golden_bisenet_logits_and_classes() -> None:
    case = golden_case("bisenet_19")
    network = BiSeNet().eval()
    network.load_state_dict(read_state(case.weights(), BiSeNet, source="golden"))
    picture = case.tensor("image_u8").float() / 255
    x = (picture - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    x = x.permute(0, 3, 1, 2).contiguous()
    logits = network(x)
    case.check("logits_sub8", logits[:, :, 3::8, 3::8], output="logits")
    case.check("logits_crop32", logits[:, :, 240:272, 240:272], output="logits")
    flat = logits.double().flatten(2)
    statistics = [flat.mean(2), flat.std(2, unbiased=False), flat.amin(2), flat.amax(2)]
    case.check("logits_stats", torch.stack(statistics, dim=2), output="logits")
    centred = logits - logits.mean(dim=(2, 3), keepdim=True)
    for name, scores, margin in (("argmax", logits, "1e-3"), ("argmax_centred", centred, "1e-2")):
        wrong = scores.argmax(dim=1).numpy() != case.expected[name]
        clear = ~case.expected[f"{name}_margin_below_{margin}"]
        assert clear.mean() > 0.1  # something is left to compare
        assert not np.any(wrong & clear)


@torch.inference_mode()
def test_golden_bisenet_parses_crops_in_our_own_range() -> None:
    case = golden_case("bisenet_19")
    network = BiSeNet().eval()
    network.load_state_dict(read_state(case.weights(), BiSeNet, source="golden"))
    probabilities = network.parse(signed(case.tensor("image_u8")))
    wrong = probabilities.argmax(dim=1).numpy() != case.expected["argmax"]
    assert not np.any(wrong & ~case.expected["argmax_margin_below_1e-3"])
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(1, 512, 512))


@pytest.mark.parametrize("solver", ["dopri5", "rk4"])
@torch.inference_mode()
def test_golden_styleflow_forward_and_reverse(solver: str) -> None:
    case = golden_case("styleflow_cnf")
    config = StyleFlowConfig(solver=solver)  # type: ignore[arg-type]
    flow = StyleFlow(config).eval()
    flow.load_state_dict(read_styleflow(case.weights(), config, source="golden"))

    def attributes(name: str) -> Tensor:
        return case.tensor(name).flatten(1)

    z = flow(case.tensor("w_batch"), attributes("attr_batch"))
    back = flow.inverse(z, attributes("attr_batch"))
    z_ui = flow(case.tensor("w_ui"), attributes("attr_ui"))
    edited = flow.inverse(z_ui, attributes("attr_ui_target"))
    case.check("z_batch_tight", z, output="z_batch")
    case.check("w_batch_back_tight", back, output="w_batch_back")
    case.check("z_ui_tight", z_ui, output="z_ui")
    case.check("w_ui_edited_tight", edited, output="w_ui_edited")


@torch.inference_mode()
def test_golden_styleflow_edit_keeps_the_rows_outside_its_range() -> None:
    case = golden_case("styleflow_cnf")
    config = StyleFlowConfig()
    flow = StyleFlow(config).eval()
    flow.load_state_dict(read_styleflow(case.weights(), config, source="golden"))
    source, target = (case.tensor(n).flatten(1) for n in ("attr_ui", "attr_ui_target"))
    edited = flow.edit(case.tensor("w_ui"), source, target, rows=(0, 4))
    atol = case.meta["tolerance"]["w_ui_edited"]["recommended_atol"]
    expected = torch.from_numpy(case.expected["w_ui_edited_tight"][:, :4])
    torch.testing.assert_close(edited[:, :4], expected, rtol=0, atol=atol)
    assert torch.equal(edited[:, 4:], case.tensor("w_ui")[:, 4:])
