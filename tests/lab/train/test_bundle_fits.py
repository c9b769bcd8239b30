"""Fits to a trained bundle: degrees of the pose flow, and the motion bank."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sglat.bundles.bundle import Bundle, draw_identities, load_bundle
from sglat.encoder.motion_bank import ROLE
from sglat.networks.pose_flow import PoseFlow, PoseFlowConfig
from sglat_lab.train import bundle_fits
from sglat_lab.train.bundle_fits import (
    calibrate,
    slopes,
    stretch,
    typical_motions,
    write_bank,
)
from tests.bundles.tiny import make_tiny_bundle


def random_flow() -> PoseFlow:
    flow = PoseFlow(PoseFlowConfig(style_dim=16, rows=2, hidden=(8,)))
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in flow.parameters():
            tensor.copy_(torch.randn(tensor.shape, generator=random) * 0.3)
    return flow


def test_a_stretched_flow_does_for_a_degree_what_it_did_for_more() -> None:
    flow, ws = random_flow(), torch.randn(3, 4, 16)
    source, target = torch.randn(3, 2) * 10, torch.randn(3, 2) * 10
    factors = torch.tensor([1.5, 0.5])
    wanted = flow.turn(ws, source * factors, target * factors)
    stretch(flow, (1.5, 0.5))
    torch.testing.assert_close(flow.turn(ws, source, target), wanted)
    assert not wanted.allclose(random_flow().turn(ws, source, target))


def test_one_latent_serves_all_targets() -> None:
    flow, ws = random_flow(), torch.randn(1, 4, 16)
    source, target = torch.randn(1, 2) * 10, torch.randn(3, 2) * 10
    wanted = flow.turn(ws.expand(3, -1, -1), source.expand(3, -1), target)
    assert not wanted[0].allclose(wanted[1])
    torch.testing.assert_close(flow.turn(ws, source, target), wanted)


def test_the_flow_undoes_itself() -> None:
    flow, ws = random_flow(), torch.randn(2, 4, 16)
    degrees = torch.randn(2, 2) * 10
    turned = flow.turn(ws, degrees, degrees + 5)
    assert float((turned - ws)[:, :2].abs().max()) > 0.01
    torch.testing.assert_close(turned[:, 2:], ws[:, 2:])
    torch.testing.assert_close(flow.turn(ws, degrees, degrees), ws, rtol=0, atol=1e-3)


@pytest.fixture
def some_angles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_fits, "ANGLES", ((-15.0, 15.0), (-10.0, 10.0)))


def people(bundle: Bundle) -> tuple[torch.Tensor, torch.Tensor]:
    return draw_identities(bundle, 3, seed=2), torch.zeros(3, 2)


@pytest.mark.usefixtures("some_angles")
def test_degrees_that_mean_too_little_are_found_and_mended() -> None:
    bundle = load_bundle("mini")
    ws, source = people(bundle)
    stretch(bundle.pose_flow, (0.7, 0.7))  # type: ignore[arg-type]
    before, *_, after = calibrate(bundle, ws, source)
    assert max(before) < 0.9
    assert after == pytest.approx((1.0, 1.0), abs=0.05)
    assert slopes(bundle, ws, source) == after


@pytest.mark.usefixtures("some_angles")
def test_a_flow_that_turns_nothing_is_refused() -> None:
    bundle = load_bundle("mini")
    ws, source = people(bundle)
    stretch(bundle.pose_flow, (0.0, 0.0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected heads that turn"):
        calibrate(bundle, ws, source)


def test_a_bank_is_written_as_a_small_part(tmp_path: Path) -> None:
    bundle = make_tiny_bundle(tmp_path / "tiny")
    write_bank(bundle, typical_motions(torch.randn(500, 34), 64))
    written = load_bundle(bundle.folder)
    written.verify()
    assert written.part(ROLE).size_bytes < 6_000
    kept = written.tensors(ROLE)["motions"]
    assert kept.shape[1] == 34 and len(kept) <= 64


def test_typical_motions_are_motions_of_the_sample() -> None:
    motions = torch.randn(300, 34)
    chosen = typical_motions(motions, 32)
    rows = {tuple(row) for row in motions.tolist()}
    assert all(tuple(row) in rows for row in chosen.tolist())
