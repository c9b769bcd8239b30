"""Training loop of the face networks: every network trains, resumes and exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from sglat.bundles.manifest import fill_network
from sglat.networks.embedded_analysis import KINDS
from sglat.networks.embedded_nets import IdentityNetwork, ParsingNetwork, folded_state
from sglat.networks.embedded_perceptual import PerceptualNetwork
from sglat_lab.train import face, faces_loop
from sglat_lab.train.adversarial_examples import fooled
from sglat_lab.train.faces_aligned import IdentityTask, ParsingTask
from sglat_lab.train.faces_detector import DetectorTask
from sglat_lab.train.faces_landmarks import LandmarkTask
from sglat_lab.train.faces_loop import LoopConfig, MuonAdam, fill_folded
from sglat_lab.train.faces_perceptual import PerceptualTask
from tests.lab.train.pack import make_packs, make_parsing, make_teachers

BATCHES = {"detector": 2, "landmarks": 4, "parsing": 2, "identity": 16, "perceptual": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packs, teachers and generator outputs."""
    pytest.importorskip("onnx", reason="needs onnx to make and read an identity network")
    folder = tmp_path_factory.mktemp("faces")
    make_packs(folder / "packs")
    make_parsing(folder / "packs")
    make_teachers(folder / "teachers")
    pictures = np.random.default_rng(4).integers(0, 255, (4, 128, 128, 3), np.uint8)
    np.savez(folder / "generated.npz", rows=np.arange(4), pictures=pictures)
    return folder


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out validation, which takes longer than the steps."""
    for task in (DetectorTask, IdentityTask, LandmarkTask, ParsingTask, PerceptualTask):
        monkeypatch.setattr(task, "validate", lambda self, network: {"figure": 1.0})


def train(folder: Path, out: Path, name: str, *, steps: int, more: tuple[str, ...] = ()) -> Any:
    """Run the command; return its result."""
    arguments = {
        "packs": folder / "packs", "cache": folder / "cache", "folder": out, "steps": steps,
        "batch-size": BATCHES.get(name, 1),
    }  # fmt: skip
    if name == "identity":
        arguments |= {"teacher": folder / "teachers" / "mobilefacenet_id.onnx", "num-mixes": 20}
    if name in ("perceptual", "levels"):
        arguments |= {
            "features": folder / "teachers" / "squeezenet1_1_features.npz",
            "heads": folder / "teachers" / "squeeze.pth", "generated": folder / "generated.npz",
        }  # fmt: skip
    options = [text for key, value in arguments.items() for text in (f"--{key}", str(value))]
    app = face.typer.Typer()
    app.command()(face.main)
    return CliRunner().invoke(app, [name, *options, *more], catch_exceptions=False)


def test_pretrained_levels_are_what_the_perceptual_network_continues_from(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = face.LevelPlan(pictures=16, batch_size=4, steps=1)
    monkeypatch.setattr(face, "PLANS", (short,) * len(face.PLANS))
    monkeypatch.setattr(face, "FITTED_PAIRS", 32)
    assert train(folder, tmp_path, "levels", steps=1).exit_code == 0
    weights = load_file(tmp_path / "levels.safetensors")
    more = ("--start", str(tmp_path / "levels.safetensors"), "--learning-rate", "0")
    assert train(folder, tmp_path / "next", "perceptual", steps=1, more=more).exit_code == 0
    found = load_file(tmp_path / "next" / "faces_perceptual.safetensors")
    for name, value in weights.items():
        torch.testing.assert_close(found[name], value)


@pytest.mark.parametrize("name", BATCHES)
def test_every_network_trains_and_exports_what_the_product_loads(
    folder: Path, tmp_path: Path, name: str
) -> None:
    assert train(folder, tmp_path, name, steps=2).exit_code == 0
    weights = load_file(tmp_path / f"faces_{name}.safetensors")
    fill_network(KINDS[name](), weights, place=name)
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())
    assert len((tmp_path / f"{name}.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("name", BATCHES)
def test_a_resumed_run_ends_with_the_weights_of_an_unbroken_one(
    folder: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The same schedule and a checkpoint at the second step: the cut run is stopped in the third.
    class Cut(Exception):
        pass

    monkeypatch.setattr(face, "LoopConfig", lambda **given: LoopConfig(validate_every=2, **given))
    assert train(folder, tmp_path / "whole", name, steps=3).exit_code == 0
    kind = type_of(name)
    draw = kind.batch
    drawn: list[int] = []

    def cut_short(task: Any, generator: np.random.Generator, size: int) -> Any:
        drawn.append(size)
        if len(drawn) == 3:
            raise Cut
        return draw(task, generator, size)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "batch", cut_short)
        with pytest.raises(Cut):
            train(folder, tmp_path / "cut", name, steps=3)
    assert train(folder, tmp_path / "cut", name, steps=3).exit_code == 0
    whole, again = (
        torch.load(tmp_path / run / f"{name}.ckpt", weights_only=True) for run in ("whole", "cut")
    )
    assert whole["step"] == again["step"] == 3
    for key, value in whole["network"].items():
        assert value.equal(again["network"][key]), key


def type_of(name: str) -> Any:
    tasks = (DetectorTask, IdentityTask, LandmarkTask, ParsingTask, PerceptualTask)
    return next(task for task in tasks if task.name == name)


@pytest.mark.parametrize(("name", "option"), [("identity", "teacher"), ("perceptual", "features")])
def test_a_network_whose_teacher_is_not_given_is_a_wrong_usage(
    folder: Path, tmp_path: Path, name: str, option: str
) -> None:
    paths = {"packs": folder / "packs", "cache": folder / "cache", "folder": tmp_path}
    app = face.typer.Typer()
    app.command()(face.main)
    options = [text for key, value in paths.items() for text in (f"--{key}", str(value))]
    done = CliRunner().invoke(app, [name, *options])
    assert done.exit_code == 2
    assert option in done.output


def test_a_run_starts_from_exported_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faces_loop, "NUM_MEASURED", 8)
    train(folder, tmp_path / "first", "parsing", steps=1)
    weights = tmp_path / "first" / "faces_parsing.safetensors"
    more = ("--start", str(weights), "--learning-rate", "0")
    assert train(folder, tmp_path / "second", "parsing", steps=1, more=more).exit_code == 0
    assert len((tmp_path / "second" / "parsing.jsonl").read_text().splitlines()) == 2


def test_muon_moves_matrices_and_filters_and_adam_all_else() -> None:
    network = PerceptualNetwork().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = MuonAdam(network.parameters(), lr=1e-3)
    shapes = sorted(tuple(p.flatten(1).shape) for p in network.parameters() if p.ndim >= 2)
    matrices = optimizer.muon.param_groups[0]["params"]
    assert sorted(tuple(p.shape) for p in matrices) == shapes
    assert {p.ndim for p in optimizer.adam.param_groups[0]["params"]} == {1}
    pictures = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(3)) * 2 - 1
    before = [p.detach().clone() for p in network.parameters()]
    network(*pictures).sum().backward()
    optimizer.step()
    for parameter, old in zip(network.parameters(), before, strict=True):
        change = (parameter.detach() - old).flatten(1) if old.ndim > 1 else parameter - old
        if old.ndim > 1:  # five rounds of Newton and Schulz leave singular values of 0.5 to 1.5
            norm = float(torch.linalg.matrix_norm(change, 2)) / max(change.shape) ** 0.5
            assert norm == pytest.approx(1e-3, rel=0.5)
        else:
            assert float(change.detach().abs().median()) == pytest.approx(1e-3, rel=0.01)


def test_a_step_of_muon_reduces_the_loss() -> None:
    torch.manual_seed(3)
    network = PerceptualNetwork()
    first, second = (torch.rand(2, 2, 3, 64, 64) * 2 - 1).unbind(0)
    optimizer = MuonAdam(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(2):
        loss = (network(first, second) - 0.3).square().sum()
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[1] < losses[0]


@pytest.mark.parametrize("kind", (IdentityNetwork, ParsingNetwork), ids=lambda k: k.__name__)
def test_a_network_filled_with_folded_weights_gives_their_output(kind: type) -> None:
    torch.manual_seed(3)
    shipped = kind(norm=False).eval()
    opened = kind(norm=True)
    pictures = torch.rand(16, 3, 128, 128) * 2 - 1
    fill_folded(opened, shipped.state_dict(), lambda: opened(pictures))
    opened.eval()
    with torch.inference_mode():
        assert torch.allclose(opened(pictures[:4]), shipped(pictures[:4]), atol=1e-4)
    again = kind(norm=False).eval()
    again.load_state_dict(folded_state(opened))
    with torch.inference_mode():
        assert torch.allclose(again(pictures[:4]), shipped(pictures[:4]), atol=1e-4)


def test_pictures_made_to_fool_a_network_lower_the_distance_they_were_made_against() -> None:
    torch.manual_seed(3)
    network = IdentityNetwork().eval()
    start, reference = (torch.rand(2, 2, 3, 128, 128) * 2 - 1).unbind(0)
    with torch.no_grad():
        wanted = network(reference)

    def distance(pictures: torch.Tensor) -> torch.Tensor:
        return 1 - (network(pictures) * wanted).sum(1)

    found = fooled(start, reference, distance, np.random.default_rng(0), steps=4)
    with torch.no_grad():
        assert bool((distance(found) < distance(start)).all())
    assert found.shape == start.shape and float(found.abs().max()) <= 1
