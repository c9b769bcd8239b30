"""Upper layers: people tuned for their features, training at 512 px that resumes, the export."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sglat.bundles.bundle import EMBEDDED_FOLDER, load_bundle
from sglat_lab.train import upper_rungs
from sglat_lab.train.upper_rungs import FinePerson, UpperConfig, UpperTrainer
from tests.lab.train.pack import _add, make_packs

NAMES = ("faces256_000", "faces256_001", "faces256_002")


def make_fine(folder: Path) -> None:
    """Write a pack of 512 px with frames of the 256 px pack's training clip."""
    random = np.random.default_rng(3)
    folder.mkdir()
    with tarfile.open(folder / "images.tar", "w") as tar:
        for name in NAMES:
            small = random.integers(0, 255, (32, 32, 3), np.uint8)
            _add(tar, f"{name}.webp", Image.fromarray(small).resize((512, 512)), "WEBP")
    np.savez(
        folder / "index.npz", name=np.array(NAMES), split=np.array(["train"] * 3),
        detail=np.full(3, 2.0, np.float32), flaw=np.array([False, False, True]),
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Packs, and the features of one tuned person."""
    folder = Path(tmp_path_factory.mktemp("upper"))
    make_packs(folder / "packs")
    make_fine(folder / "packs" / "faces512")
    upper_rungs.people(
        folder / "packs", folder / "cache", EMBEDDED_FOLDER, folder / "people", clip_steps=3
    )
    return folder


def trainer(folder: Path, out: Path) -> UpperTrainer:
    config = UpperConfig(people=4, steps=2)
    return UpperTrainer(config, folder / "people", folder / "packs", load_bundle("mini"), out)


def test_pictures_with_flaws_are_left_out(folder: Path) -> None:
    (path,) = (folder / "people").glob("*.pt")
    person = FinePerson.read(path, folder / "packs")
    assert person.windows.targets.shape == (2, 3, 512, 512)
    assert person.windows.features.shape == (2, 48, 128, 128)
    assert person.ws.shape == (16, 256)


def test_new_layers_begin_as_the_upsampled_picture() -> None:
    bundle = load_bundle("mini")
    generator = upper_rungs.new_layers(bundle.config).on(bundle.generator)
    with torch.no_grad():
        styles = generator.styles(torch.randn(1, 16, 256))
        x, image = bundle.generator.rung(styles[:17])
        middle, full = generator.upper_rungs(x, image, styles[17:])
        whole = generator.synthesize(styles)
    upsampled = torch.nn.functional.interpolate(
        image, scale_factor=2, mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(middle, upsampled)
    torch.testing.assert_close(full, whole)


def test_a_resumed_run_ends_alike(folder: Path, tmp_path: Path) -> None:
    whole = trainer(folder, tmp_path / "whole")
    whole.run()
    trainer(folder, tmp_path / "cut").run(people=2)
    second = trainer(folder, tmp_path / "cut")
    assert second.done == 2
    second.run()
    assert second.done == 4
    found = second.layers.state_dict()
    for name, value in whole.layers.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)


def test_training_changes_the_layers_above_only(folder: Path, tmp_path: Path) -> None:
    run = trainer(folder, tmp_path)
    before = {name: value.clone() for name, value in run.generator.named_parameters()}
    run.run(people=1)
    changed = {
        name
        for name, value in run.generator.named_parameters()
        if not torch.equal(value, before[name])
    }
    assert changed
    assert all(int(name.split(".")[1]) >= 17 for name in changed)


def test_people_are_tuned_from_where_the_layers_are(folder: Path, tmp_path: Path) -> None:
    """The same person twice: the second time tuning begins with a lower loss."""
    run = trainer(folder, tmp_path)
    run.config = UpperConfig(people=4, steps=12, rate=1.0)
    first, _ = run.step()
    second, _ = run.step()
    assert second < first


def test_a_damaged_checkpoint_is_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(SystemExit, match=r"cannot resume from .*checkpoint\.pt"):
        trainer(folder, tmp_path)


def test_without_people_the_command_says_what_to_run_first(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="run `people` first"):
        UpperTrainer(UpperConfig(), tmp_path, folder / "packs", load_bundle("mini"), tmp_path / "o")


def test_the_export_adds_rungs_and_leaves_the_rest(folder: Path, tmp_path: Path) -> None:
    run = trainer(folder, tmp_path / "run")
    run.run(people=1)
    upper_rungs.export(run.checkpoint_path, EMBEDDED_FOLDER, tmp_path / "bundle")
    made, start = load_bundle(tmp_path / "bundle"), load_bundle("mini")
    made.verify()
    assert made.rungs == (128, 256, 512)
    assert made.decoder_id == start.decoder_id
    assert made.at(512).generator.config.channels[-2:] == (32, 16)
    stored = dict(made.at(512).generator.named_parameters())["layers.20.weight"]
    wanted = dict(run.generator.named_parameters())["layers.20.weight"]
    torch.testing.assert_close(stored, wanted, rtol=1e-3, atol=1e-4)
