"""The auto-decoder: the loss falls, a resumed run ends alike, and an export is a bundle."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from sglat.bundles.bundle import load_bundle
from sglat.bundles.manifest import write_part
from sglat.encoder.motion_bank import ROLE
from sglat.networks.stylespace import GeneratorConfig
from sglat_lab.train.auto_decoder import PeopleTrainer, export_average
from sglat_lab.train.auto_decoder_losses import AutoDecoderConfig
from sglat_lab.train.bundle_fits import with_mapping
from sglat_lab.train.data import FaceSampler, prepare
from sglat_lab.train.export import export, read_compact, write_compact
from sglat_lab.train.mini_model import MiniModel
from tests.lab.train.pack import make_packs


def small_config(resolution: int = 128) -> GeneratorConfig:
    """Return the embedded generator's shape with narrow layers."""
    return GeneratorConfig(
        resolution=resolution, channels=(16, 16, 16, 16, 16, 8), style_dim=256, latent_dim=256,
        mapping_layers=0, up_filter="low-resolution", noise=False,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train narrow layers."""
    monkeypatch.setattr(GeneratorConfig, "mini", staticmethod(small_config))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packs, and an untrained bundle to start from."""
    folder = tmp_path_factory.mktemp("people")
    make_packs(folder / "packs")
    faces = prepare(folder / "packs", folder / "cache", 128)
    sampler = FaceSampler(faces, folder / "packs", device=torch.device("cpu"), seed=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GeneratorConfig, "mini", staticmethod(small_config))
        torch.manual_seed(0)
        export(MiniModel.of_size(128), folder / "start", sampler.label_sample(), name="small")
    return folder


def trainer(folder: Path, out: Path, **options: Any) -> PeopleTrainer:
    compact = options.pop("compact", None)
    options = {"clips": 2, "stills": 1, "swaps": 1, "warm_up": 1, **options}
    return PeopleTrainer(
        AutoDecoderConfig(**options), packs=folder / "packs", cache=folder / "cache",
        start=folder / "start", out=out, compact=compact,
    )  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"rank": 2, "delta_share": 0.5}, {"people": "inverter"}])
def test_a_run_that_stops_and_resumes_ends_with_the_weights_of_one_that_does_not(
    folder: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    whole = trainer(folder, tmp_path / "whole", **options)
    whole.run(steps=4)
    trainer(folder, tmp_path / "parts", **options).run(steps=2)
    parts = trainer(folder, tmp_path / "parts", **options)
    assert parts.step_number == 2
    parts.run(steps=2)
    for found, wanted in ((parts.model, whole.model), (parts.average, whole.average)):
        for name, value in wanted.state_dict().items():
            torch.testing.assert_close(found.state_dict()[name], value, msg=name)
    for name, value in whole.people.state_dict().items():
        torch.testing.assert_close(parts.people.state_dict()[name], value, msg=name)


def test_the_loss_falls(folder: Path, tmp_path: Path) -> None:
    run = trainer(folder, tmp_path / "out")
    losses = [run.step()["pixels"] for _ in range(30)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_people_are_swapped_in_the_steps_that_are_measured(folder: Path, tmp_path: Path) -> None:
    run = trainer(folder, tmp_path / "out", measured_every=3)
    terms = [set(run.step()) for _ in range(4)]
    assert ["swap" in found for found in terms] == [True, False, False, True]
    assert ["reading" in found for found in terms] == [True, False, False, True]


def test_a_run_without_deltas_goes_on_with_them(folder: Path, tmp_path: Path) -> None:
    trainer(folder, tmp_path / "out").run(steps=1)
    run = trainer(folder, tmp_path / "out", rank=2, delta_share=1.0)
    before = run.model.generator.const.detach().clone()
    run.run(steps=1)
    assert run.step_number == 2
    assert any(float(value.detach().abs().max()) > 0 for value in run.people.delta_groups()[0])
    assert not run.model.generator.const.equal(before)  # the shared weights learn from them too


def test_a_cut_checkpoint_ends_with_one_line(folder: Path, tmp_path: Path) -> None:
    run = trainer(folder, tmp_path / "out")
    run.save()
    content = run.checkpoint_path.read_bytes()
    run.checkpoint_path.write_bytes(content[: len(content) // 2])
    with pytest.raises(SystemExit, match=r"cannot resume from \S*checkpoint\.pt: \S"):
        trainer(folder, tmp_path / "out")


def test_a_compact_copy_exports_a_bundle_that_loads(folder: Path, tmp_path: Path) -> None:
    run = trainer(folder, tmp_path / "out")
    run.run(steps=1)
    write_compact(run.state(), tmp_path / "average.safetensors")
    stored = read_compact(tmp_path / "average.safetensors")
    assert len(stored["codes"]) == len(run.people.codes)
    export_average(stored, folder / "start", tmp_path / "bundle", run.sampler)
    bundle = load_bundle(tmp_path / "bundle")
    bundle.verify()
    assert bundle.name == "small"
    assert bundle.tensors(ROLE)["motions"].shape[1] == 34


def test_a_run_begins_from_a_compact_copy(folder: Path, tmp_path: Path) -> None:
    run = trainer(folder, tmp_path / "out")
    run.run(steps=2)
    write_compact(run.state(), tmp_path / "copy.safetensors")
    other = trainer(folder, tmp_path / "other", compact=tmp_path / "copy.safetensors")
    assert other.step_number == 2
    for name, value in run.average.state_dict().items():
        wanted = value.half().float() if value.is_floating_point() else value
        assert other.model.state_dict()[name].equal(wanted), name
    for found, code in zip(other.people.codes, run.people.codes, strict=True):
        assert found.equal(code.detach().half().float())


def test_a_damaged_compact_copy_ends_with_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "copy.safetensors").write_bytes(b"nothing")
    with pytest.raises(SystemExit, match=r"cannot read \S*copy\.safetensors as a compact"):
        trainer(folder, tmp_path / "out", compact=tmp_path / "copy.safetensors")


def test_an_export_keeps_the_mapping_network_of_the_bundle_it_began_with(
    folder: Path, tmp_path: Path
) -> None:
    run = trainer(folder, tmp_path / "out")
    start = shutil.copytree(folder / "start", tmp_path / "start")
    old = load_bundle(start)
    generator = with_mapping(old.generator, 2)
    write_part(
        start, name="small", role="generator", kind="stylegan2",
        tensors={name: value.half() for name, value in generator.state_dict().items()},
        config=generator.config.to_json(),
    )  # fmt: skip
    export_average(run.state(), start, tmp_path / "bundle", run.sampler)
    kept = load_bundle(tmp_path / "bundle").generator.mapping.state_dict()
    assert len(kept) == 4
    for name, value in load_bundle(start).generator.mapping.state_dict().items():
        assert value.equal(kept[name]), name


def test_the_rate_of_a_step_does_not_depend_on_where_a_run_began() -> None:
    config = AutoDecoderConfig(total_steps=100, anneal_steps=40, warm_up=10)
    rates = [config.rate(step) for step in (0, 9, 50, 80, 100)]
    assert rates == pytest.approx([0.1, 1.0, 1.0, 0.5, 0.02])
