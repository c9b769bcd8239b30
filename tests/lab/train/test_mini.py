"""The training program of the embedded bundle: some steps of every kind, resuming, exporting."""

from __future__ import annotations

import argparse
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sglat.bundles.bundle import Bundle, load_bundle
from sglat.decoder.synthesizer import Person, Synthesizer
from sglat.networks.stylegan2 import upsample_clamped
from sglat.networks.stylespace import GeneratorConfig
from sglat_lab.train import mini
from sglat_lab.train.data import FaceSampler, as_fine, prepare
from sglat_lab.train.export import control_sigma, export, rescale_controls, turn_controls
from sglat_lab.train.mini import TrainConfig, Trainer
from sglat_lab.train.mini_model import MiniModel
from tests.lab.train.pack import FRAMES, STILLS, make_packs, make_teachers
from tests.support.far import FAR, far_device
from tests.support.tolerances import HALF_WEIGHTS_ATOL

pytest.importorskip("onnx", reason="needs onnx to make and read an identity network")


def small_config(resolution: int = 128) -> GeneratorConfig:
    """Return the embedded generator's shape with narrow layers."""
    channels = (16, 16, 16, 16, 16, 8, 8)[: resolution.bit_length() - 2]
    return GeneratorConfig(
        resolution=resolution, channels=channels, style_dim=256, latent_dim=256,
        mapping_layers=0, up_filter="low-resolution", noise=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packs, teachers and the cache that the first trainer fills."""
    folder = tmp_path_factory.mktemp("training")
    make_packs(folder / "packs")
    make_teachers(folder / "teachers")
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train narrow layers and validate on few pictures, so that a run takes some seconds."""
    make_small(monkeypatch)


def make_small(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(GeneratorConfig, "mini", staticmethod(small_config))
    patch.setattr(mini, "validate", partial(mini.validate, stills=12, pairs=12))


def trainer(
    folder: Path, out: Path, *, start: Path | None = None, device: str = "cpu", **options: Any
) -> Trainer:
    arguments = argparse.Namespace(
        packs=folder / "packs", teachers=folder / "teachers", cache=folder / "cache", out=out,
        device=device, start=start, lpips_heads=None,
    )  # fmt: skip
    options = {"batch": 2, "steps": 2, "precision": "fp32", **options}
    return Trainer(TrainConfig(**options), arguments)


@pytest.mark.parametrize(
    "options",
    [
        {"phase": "autoencoder", "resolution": 32},
        {"phase": "autoencoder", "resolution": 64},
        {"phase": "autoencoder", "resolution": 128},
        {"phase": "manifold"},
        {"phase": "manifold", "precision": "bf16"},
        {"phase": "manifold", "weight_adversarial": 0.1, "weight_identity": 0.1},
        {"phase": "autoencoder", "size": 256, "resolution": 32},
        {"phase": "manifold", "size": 256},
        {"phase": "manifold", "size": 256, "weight_adversarial": 0.1, "weight_identity": 0.1},
    ],
    ids=lambda options: " ".join(str(value) for value in options.values()),
)
def test_every_phase_and_resolution_learns_from_its_first_steps(
    folder: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    trained = trainer(folder, tmp_path / "out", **options)
    before = {name: value.clone() for name, value in trained.model.state_dict().items()}
    trained.run()
    assert (trained.state["step"], trained.state["images"]) == (2, 4)
    after = trained.model.state_dict()
    assert all(bool(torch.isfinite(value).all()) for value in after.values())
    moved = {name.split(".")[0] for name, value in after.items() if not value.equal(before[name])}
    parts = {"generator", "inverter"}
    if options["phase"] == "manifold":
        parts |= {"pose_flow", "estimator", "directions"}
    assert moved == parts
    assert len(list((tmp_path / "out").glob("sheet_*.png"))) == 1
    record = trained.state["log"][-1]
    assert np.isfinite([v for v in record.values() if isinstance(v, float)]).all()


@pytest.mark.parametrize(
    "options",
    [
        {"phase": "autoencoder", "resolution": 64, "weight_identity": 0.1},
        {"phase": "manifold", "weight_adversarial": 0.1, "weight_identity": 0.1,
         "weight_region": 0.1, "weight_pose": 0.1},
    ],
    ids=("autoencoder", "manifold"),
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")  # it is copied, far
def test_a_run_goes_on_on_another_device_and_back(
    folder: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    out = tmp_path / "out"
    near = trainer(folder, out, **options)
    near.run()
    with far_device():
        far = trainer(folder, out, device=FAR.type, **options)
        assert far.state["step"] == 2
        begun = {name: value.cpu().clone() for name, value in far.model.state_dict().items()}
        assert {value.device.type for value in far.model.state_dict().values()} == {FAR.type}
        far.run()
        reached = {name: value.cpu() for name, value in far.model.state_dict().items()}
    back = trainer(folder, out, **options)
    assert back.state["step"] == 4
    for name, value in back.model.state_dict().items():
        assert begun[name].equal(near.model.state_dict()[name]), name
        assert value.equal(reached[name]), name
    assert any(not value.equal(begun[name]) for name, value in reached.items())
    back.run()
    assert back.state["step"] == 6
    assert all(bool(torch.isfinite(value).all()) for value in back.model.state_dict().values())


def test_a_low_resolution_leaves_the_layers_above_it_alone(folder: Path, tmp_path: Path) -> None:
    trained = trainer(folder, tmp_path / "out", phase="autoencoder", resolution=32)
    top = [layer for layer in trained.model.generator.layers if layer.entry.resolution > 32]
    before = [value.clone() for layer in top for value in layer.parameters()]
    trained.run()
    after = [value for layer in top for value in layer.parameters()]
    assert before and all(a.equal(b) for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"phase": "manifold", "resolution": 64}, "need 128, found 64"),
        ({"phase": "autoencoder", "resolution": 64, "weight_adversarial": 1.0}, "found 64"),
        ({"phase": "autoencoder", "resolution": 16}, "need 32 px, found 16"),
        ({"phase": "autoencoder", "resolution": 100}, "power of two to 128, found 100"),
        ({"phase": "other"}, "expected autoencoder or manifold, found other"),
        ({"precision": "fp8"}, "expected auto, bf16 or fp32, found fp8"),
        ({"size": 512}, r"expected one of \(128, 256\), found 512"),
        ({"size": 256, "resolution": 128, "phase": "manifold"}, "need 256, found 128"),
        ({"compile": "yes"}, "expected auto, on or off, found yes"),
        ({"steps": 2, "anneal_steps": 3}, "at most the 2 of --steps, found 3"),
    ],
)
def test_what_cannot_be_trained_is_one_line(
    folder: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SystemExit, match=message) as caught:
        trainer(folder, tmp_path / "out", **options)
    assert "\n" not in str(caught.value)


def test_the_learning_rate_warms_up_and_falls_where_asked(folder: Path, tmp_path: Path) -> None:
    run = trainer(folder, tmp_path / "out", steps=1000, anneal_steps=400)
    rates = [run.rate(step, seconds_left=60.0) for step in (0, 100, 500, 800, 999)]
    assert rates == pytest.approx([0.0025, 0.5025, 1.0, 0.5, 0.05])
    run = trainer(folder, tmp_path / "out", steps=1000, anneal_minutes=10.0)
    assert run.rate(500, seconds_left=300.0) == pytest.approx(0.5)


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps."""
    out = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        trainer(folder, out).run()
    return out


def copied(trained: Path, out: Path) -> Path:
    out.mkdir()
    (out / "checkpoint.pt").write_bytes((trained / "checkpoint.pt").read_bytes())
    return out


def test_a_run_goes_on_where_the_last_one_ended(
    folder: Path, trained: Path, tmp_path: Path
) -> None:
    out = copied(trained, tmp_path / "out")
    again = trainer(folder, out)
    stored = torch.load(out / "checkpoint.pt", weights_only=True)
    assert (again.state["step"], again.state["images"]) == (2, 4)
    for part, network in (("model", again.model), ("average", again.average)):
        for name, value in network.state_dict().items():
            assert value.equal(stored[part][name]), name
    moments = again.optimizer.state_dict()["state"]
    assert moments and all(int(m["step"]) == 2 for m in moments.values())
    again.run()
    assert (again.state["step"], again.state["images"], len(again.state["log"])) == (4, 8, 2)
    assert torch.load(out / "checkpoint.pt", weights_only=True)["state"]["step"] == 4


def test_another_phase_goes_on_from_the_same_checkpoint(
    folder: Path, trained: Path, tmp_path: Path
) -> None:
    again = trainer(folder, copied(trained, tmp_path / "out"), phase="autoencoder", resolution=64)
    again.run()
    assert again.state["step"] == 4


def test_a_checkpoint_goes_on_at_twice_the_side_and_draws_the_same_at_first(
    folder: Path, trained: Path, tmp_path: Path
) -> None:
    before = trainer(folder, trained).average
    again = trainer(folder, copied(trained, tmp_path / "out"), size=256)
    ws = torch.randn(2, 14, 256)
    small, large = before.generator(ws[:, :12]), again.average.generator(ws)
    torch.testing.assert_close(large, upsample_clamped(small), atol=1e-5, rtol=1e-5)
    crops = torch.rand(2, 3, 256, 256) * 2 - 1
    rows = again.average.inverter(crops)
    expected = before.inverter(torch.nn.functional.interpolate(crops, size=128, mode="area"))
    torch.testing.assert_close(rows[:, :12], expected)
    torch.testing.assert_close(rows[:, 12:], expected[:, 11:].expand(-1, 2, -1))
    colours = again.model.generator.layers[19]
    assert colours.weight.abs().max() == 0
    again.run()
    assert colours.weight.abs().max() > 0
    assert trainer(folder, tmp_path / "out", size=256).state["step"] == 4


def test_a_larger_checkpoint_does_not_go_on_at_a_smaller_side(
    folder: Path, trained: Path, tmp_path: Path
) -> None:
    out = copied(trained, tmp_path / "out")
    trainer(folder, out, size=256).run()
    with pytest.raises(SystemExit, match=r"cannot resume from \S*checkpoint\.pt: \S"):
        trainer(folder, out)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_networks_learn_what_the_others_learn(folder: Path, tmp_path: Path) -> None:
    runs = [
        trainer(folder, tmp_path / name, compile=name, weight_identity=0.1, batch=4)
        for name in ("off", "on")
    ]
    terms = [run.step(0.1) for run in runs]
    assert terms[0].keys() == terms[1].keys()
    for name, value in terms[0].items():
        assert terms[1][name] == pytest.approx(value, rel=1e-3), name
    states = [run.model.state_dict() for run in runs]
    assert states[0].keys() == states[1].keys()


def test_pictures_that_were_enlarged_are_compared_without_detail() -> None:
    images = torch.rand(2, 3, 256, 256)
    is_fine = torch.tensor([True, False])
    compared = as_fine(images, is_fine)
    assert compared[0].equal(images[0])
    blocks = torch.nn.functional.avg_pool2d(images[1:], 2)
    torch.testing.assert_close(compared[1:], upsample_clamped(blocks))
    assert as_fine(images[..., :128, :128], is_fine).equal(images[..., :128, :128])


def test_at_256_px_stills_of_the_small_pack_are_not_fine(folder: Path) -> None:
    faces = prepare(folder / "packs", folder / "cache", 256)
    sampler = FaceSampler(faces, folder / "packs", device=torch.device("cpu"), seed=0)
    assert faces.images.shape == (STILLS + FRAMES + 2, 256, 256, 3)
    assert int(sampler.is_fine.sum()) == FRAMES + 2
    stills = sampler.batch(sampler.val_stills)
    assert not stills.is_fine.any() and sampler.batch(sampler.val_frames).is_fine.all()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_cut_checkpoint_says_why_not_in_one_line(
    folder: Path, trained: Path, tmp_path: Path, share: float
) -> None:
    out = copied(trained, tmp_path / "out")
    content = (out / "checkpoint.pt").read_bytes()
    (out / "checkpoint.pt").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(SystemExit, match=r"cannot resume from \S*checkpoint\.pt: \S") as caught:
        trainer(folder, out)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_other_shapes_says_why_not_in_one_line(
    folder: Path, trained: Path, tmp_path: Path
) -> None:
    out = copied(trained, tmp_path / "out")
    stored = torch.load(out / "checkpoint.pt", weights_only=True)
    stored["model"]["generator.const"] = torch.zeros(1, 5, 4, 4)
    torch.save(stored, out / "checkpoint.pt")
    with pytest.raises(SystemExit, match=r"generator\.const") as caught:
        trainer(folder, out)
    assert "\n" not in str(caught.value)


def test_the_packs_are_decoded_once_and_all(folder: Path, trained: Path) -> None:
    faces = prepare(folder / "packs", folder / "cache", 128)
    assert faces.images.shape == (STILLS + FRAMES + 2, 128, 128, 3)
    kept = sorted(path.suffix for path in (folder / "cache").glob("faces_128*"))
    assert kept == [".npy", ".npz"]


def exported(folder: Path, trained: Path, target: Path) -> MiniModel:
    """Export the checkpoint and return the averaged model it came from."""
    faces = prepare(folder / "packs", folder / "cache", 128)
    sampler = FaceSampler(faces, folder / "packs", device=torch.device("cpu"), seed=0)
    export(trainer(folder, trained).average, target, sampler.label_sample(), name="small")
    return trainer(folder, trained).average


def test_what_is_exported_is_a_bundle_that_renders_as_the_averaged_model(
    folder: Path, trained: Path, tmp_path: Path
) -> None:
    model = exported(folder, trained, tmp_path / "bundle")
    bundle = load_bundle(tmp_path / "bundle")
    bundle.verify()
    assert len(bundle.decoder_id) == 32
    crops = torch.rand(2, 3, 128, 128) * 2 - 1
    with torch.no_grad():
        ws = bundle.inverter(crops)
        torch.testing.assert_close(ws, model.inverter(crops), atol=HALF_WEIGHTS_ATOL, rtol=0)
        found, wanted = bundle.generator(ws), model.generator(ws)
    torch.testing.assert_close(found, wanted, atol=HALF_WEIGHTS_ATOL, rtol=0)


def test_a_bundle_of_256_px_animates_its_pictures(
    folder: Path, trained: Path, tmp_path: Path
) -> None:
    larger = trainer(folder, copied(trained, tmp_path / "larger"), size=256)
    export(larger.average, tmp_path / "bundle", larger.sampler.label_sample(), name="larger")
    bundle = load_bundle(tmp_path / "bundle")
    assert bundle.resolution == 256
    with torch.no_grad():
        ws = bundle.inverter(torch.rand(1, 3, 256, 256) * 2 - 1)
        person = Person(ws=ws[0], neutral=torch.zeros(34))
        numbers = torch.stack([torch.zeros(34), torch.ones(34)])
        pictures = Synthesizer.of(bundle).render(person, numbers)
        still = larger.average.generator(ws)[0]
    assert pictures.shape == (2, 3, 256, 256)
    torch.testing.assert_close(pictures[0], still, atol=HALF_WEIGHTS_ATOL, rtol=0)
    assert (pictures[1] - pictures[0]).abs().max() > HALF_WEIGHTS_ATOL


def test_training_can_start_from_an_exported_bundle(
    folder: Path, trained: Path, tmp_path: Path
) -> None:
    exported(folder, trained, tmp_path / "bundle")
    begun = trainer(folder, tmp_path / "out", start=tmp_path / "bundle")
    assert begun.state["step"] == 0
    bundle = Bundle(tmp_path / "bundle")
    for name, value in bundle.inverter.state_dict().items():
        assert value.equal(begun.model.inverter.state_dict()[name]), name
    values = torch.randn(3, 32)
    styles = bundle.generator.styles(torch.zeros(3, 12, 256))
    moved = bundle.controls.apply(styles, values)
    offsets = torch.cat(
        [a - b for a, b, entry in zip(moved, styles, small_config().style_table, strict=True)
         if entry.kind != "torgb"], 1,
    )  # fmt: skip
    torch.testing.assert_close(values @ begun.model.directions, offsets, atol=1e-4, rtol=1e-3)


def test_a_bundle_of_larger_pictures_is_no_start(
    folder: Path, trained: Path, tmp_path: Path
) -> None:
    larger = trainer(folder, copied(trained, tmp_path / "larger"), size=256)
    export(larger.average, tmp_path / "bundle", larger.sampler.label_sample(), name="larger")
    with pytest.raises(
        SystemExit, match=r"cannot start from \S*bundle: expected no more"
    ) as caught:
        trainer(folder, tmp_path / "out", start=tmp_path / "bundle")
    assert "\n" not in str(caught.value)


def test_a_damaged_weight_file_is_named_with_expected_and_found_hash(
    folder: Path, trained: Path, tmp_path: Path
) -> None:
    exported(folder, trained, tmp_path / "bundle")
    part = Bundle(tmp_path / "bundle").part("generator")
    path = tmp_path / "bundle" / part.file
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(SystemExit, match=r"cannot start from \S*bundle: ") as caught:
        trainer(folder, tmp_path / "out", start=tmp_path / "bundle")
    message = str(caught.value)
    assert part.file in message and "expected" in message and "found" in message
    assert part.sha256 in message and "\n" not in message


def test_turned_controls_say_what_they_said_before(folder: Path, trained: Path) -> None:
    faces = prepare(folder / "packs", folder / "cache", 128)
    sampler = FaceSampler(faces, folder / "packs", device=torch.device("cpu"), seed=0)
    model, sample = trainer(folder, trained).average, sampler.label_sample()
    rescale_controls(model, control_sigma(model, sample))
    with torch.no_grad():
        before, strong = model.estimator(*sample) @ model.directions, model.directions[25].clone()
        turn_controls(model, 25, 26, 30.0)
        rescale_controls(model, control_sigma(model, sample))
        after = model.estimator(*sample) @ model.directions
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(model.directions[25], strong)
    torch.testing.assert_close(control_sigma(model, sample), torch.ones(32))


@pytest.mark.parametrize(("first", "second"), [(25, 27), (3, 3), (16, 17)])
def test_controls_of_two_groups_are_not_turned(
    folder: Path, trained: Path, first: int, second: int
) -> None:
    model = trainer(folder, trained).average
    with pytest.raises(ValueError, match="two controls of one group"):
        turn_controls(model, first, second, 30.0)
