"""Measurements at every resolution of a file, on a drawn clip and a random bundle."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch

from sglat.bitstream.edits import drop_layers
from sglat.bundles.bundle import Bundle
from sglat.decoder.decode import DecodeConfig, Decoder
from sglat.errors import UsageError
from sglat_lab.bench import clips, file_variants, long_decode, rungs, solvers
from sglat_lab.bench.anchors import ANCHORS
from sglat_lab.bench.clip_bench import QUICK
from sglat_lab.bench.probes import Tools
from sglat_lab.measure.judges import Judges
from sglat_lab.measure.picture_metrics import psnr_db
from tests.bundles.tiny import add_upper_layers, make_tiny_bundle
from tests.decoder.test_rungs import fine_identity
from tests.lab.bench.test_clips import Drawn
from tests.support.files import write_file
from tests.support.video import moving_square, write_video

FRAMES = 12
EFFORT = replace(QUICK, frames=4, window=6)
X264 = ANCHORS[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a clip, its file of 64 px and the bundle."""
    folder = Path(tmp_path_factory.mktemp("rungs"))
    make_tiny_bundle(folder / "bundle")
    bundle = add_upper_layers(folder / "bundle")
    (folder / "clips").mkdir()
    write_video(folder / "clips" / "a.mp4", [moving_square(i) for i in range(FRAMES)])
    identity = fine_identity(bundle)
    write_file(folder / "a.sglat", bundle.at(64), frames=FRAMES, identity=identity)
    return folder


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    """At its lowest rung, 16 px."""
    return Bundle(folder / "bundle")


@pytest.fixture
def tools(folder: Path, bundle: Bundle) -> Any:
    def grey(pictures: torch.Tensor) -> torch.Tensor:
        vectors = pictures.mean(1).flatten(1)[:, :8] + 2
        return vectors / vectors.norm(dim=1, keepdim=True)

    return SimpleNamespace(
        bundle=bundle, judges=Judges(identity=grey), any_landmarker=Drawn(), anchors=[X264],
        config=SimpleNamespace(bundle=str(folder / "bundle")),
    )  # fmt: skip


@pytest.fixture
def clip(folder: Path, tmp_path: Path) -> rungs.RungClip:
    return rungs.RungClip(
        video=folder / "clips" / "a.mp4", out=tmp_path, encoded=folder, effort=EFFORT,
        decoded_frames=FRAMES,
    )  # fmt: skip


def shown(path: Path, bundle: Bundle, size: int, *, half: bool | None = None) -> np.ndarray:
    with path.open("rb") as file:
        decoder = Decoder(file, bundle=bundle, config=DecodeConfig(size=size, half=half))
        return np.stack([frame.picture for frame in decoder.frames()])


def test_a_file_of_several_rungs_is_measured_at_that_of_the_bundle(
    folder: Path, bundle: Bundle, tmp_path: Path
) -> None:
    path, rows = folder / "a.sglat", np.array([1, 5])
    for size in (16, 64):
        wanted = shown(path, bundle, size)
        found, _ = file_variants.decoded(path, bundle.at(size))
        some = file_variants.decoded_rows(path, bundle.at(size), rows, tmp_path)
        assert found.shape == wanted.shape == (FRAMES, size, size, 3)
        assert np.abs(found.astype(int) - wanted).max() <= 1
        assert np.abs(some.astype(int) - wanted[rows]).max() <= 1


def test_a_decoded_clip_is_written_at_the_rung_of_the_bundle(
    folder: Path, bundle: Bundle, tmp_path: Path
) -> None:
    for size in (16, 64):
        target = tmp_path / f"{size}.mp4"
        clips.decode_clip(folder / "clips" / "a.mp4", folder / "a.sglat", target, bundle.at(size))
        with av.open(str(target)) as container:
            assert next(container.decode(video=0)).width == size


@pytest.mark.parametrize(("size", "found"), [(None, 16), (64, 64)])
def test_decoding_apart_is_at_the_lowest_rung_unless_a_size_is_given(
    folder: Path, size: int | None, found: int
) -> None:
    path, bundle = folder / "a.sglat", str(folder / "bundle")
    record = long_decode.decode_apart(path, bundle=bundle, threads=1, size=size)
    assert (record["size"], record["frames"]) == (found, FRAMES)


def test_the_person_of_a_file_of_several_rungs_is_solved_for_at_the_lowest(
    folder: Path, bundle: Bundle
) -> None:
    path = folder / "a.sglat"
    motion = file_variants.parse(path).motion
    numbers = torch.from_numpy((motion.values * motion.steps).astype(np.float32))
    with torch.no_grad():
        rendered = solvers.person_in(path, bundle).render(numbers).clamp(-1, 1)
    own = ((rendered + 1) * 127.5).permute(0, 2, 3, 1).numpy()
    assert np.abs(own - shown(path, bundle, 16, half=False)).max() <= 2


def test_figures_of_a_rung_are_those_of_its_pictures(
    clip: rungs.RungClip, tools: Any, bundle: Bundle
) -> None:
    lowest, _, top = rungs.benches(clip, tools)
    found = rungs.rung_figures(top, lowest, tools)
    source = file_variants.source_crops(clip.video, file_variants.parse(clip.file), 64)
    ours, small = (shown(clip.file, bundle, size) for size in (64, 16))
    rows = np.linspace(0, FRAMES - 1, EFFORT.frames).round().astype(int)
    large = rungs.enlarge(small, 64)
    wanted = [
        float(np.mean([psnr_db(part[at], source[at]) for at in rows])) for part in (ours, large)
    ]
    assert found["ours"]["psnr"] == pytest.approx(wanted[0], abs=0.02)
    assert found["enlarged"]["psnr"] == pytest.approx(wanted[1], abs=0.02)
    assert found["gain"]["psnr"] == pytest.approx(wanted[0] - wanted[1], abs=0.04)
    losses = [found[who]["identity_loss"] for who in ("ours", "enlarged")]
    assert found["ratio"]["identity_loss"] == pytest.approx(losses[0] / losses[1])
    changes = np.abs(np.diff(ours[:6].astype(int), axis=0)).mean()
    source_changes = np.abs(np.diff(source[:6].astype(int), axis=0)).mean()
    assert found["ours"]["change_ratio"] == pytest.approx(changes / source_changes, rel=0.02)


def test_the_lowest_rung_is_not_compared_with_itself(clip: rungs.RungClip, tools: Any) -> None:
    lowest, *_ = rungs.benches(clip, tools)
    assert not {"enlarged", "ratio", "gain"} & set(rungs.rung_figures(lowest, lowest, tools))


def test_anchors_spend_our_whole_rate_at_every_rung(clip: rungs.RungClip, tools: Any) -> None:
    lowest, _, top = rungs.benches(clip, tools)
    for bench in (lowest, top):
        found = rungs.rung_figures(bench, lowest, tools)["anchors"][X264.name]
        level, wanted = found["level"], bench.cost.first_view(60)
        assert found["kbit_per_second_60s"] >= wanted or level == X264.levels[0]
        if level < X264.levels[-1]:
            assert bench.anchor_cost(X264, level + 1).first_view(60) < wanted
        assert bench.source.shape[1] == bench.bundle.resolution


def test_a_file_without_upper_layers_is_measured_at_its_lower_rung(
    clip: rungs.RungClip, tools: Any, tmp_path: Path
) -> None:
    with clip.file.open("rb") as file, (tmp_path / "a.sglat").open("wb") as target:
        drop_layers(file, target, keep=2)
    cut = replace(clip, encoded=tmp_path)
    assert [bench.bundle.resolution for bench in rungs.benches(cut, tools)] == [16]


def test_every_byte_of_the_identity_counts_for_one_resolution(
    clip: rungs.RungClip, tools: Any
) -> None:
    found = rungs.encode_probe(clip, tools)
    sizes = found["bytes_by_size"]
    assert list(sizes) == ["latent", "16", "32", "64"]
    assert all(sizes.values())
    assert sum(sizes.values()) <= 1000 * found["identity_kilobytes"]
    assert found["encode_seconds"] is None  # no record beside the file


def test_a_file_that_was_to_be_made_earlier_is_not_encoded(
    clip: rungs.RungClip, tools: Any, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"not-encoded: expected .*none/a.sglat, found none"):
        rungs.encode_probe(replace(clip, encoded=tmp_path / "none"), tools)


def test_an_anchor_is_beaten_in_all_that_decides() -> None:
    theirs = {"perceptual_face": 0.2, "identity_loss": 0.1}
    assert rungs.is_beaten({"perceptual_face": 0.1, "identity_loss": 0.05}, theirs)
    assert not rungs.is_beaten({"perceptual_face": 0.1, "identity_loss": 0.1}, theirs)
    assert not rungs.is_beaten({"psnr": 30.0}, {"psnr": 20.0})


def test_means_are_over_the_clips_that_have_a_figure() -> None:
    found = rungs.mean_of([{"a": {"x": 1, "name": "p"}}, {"a": {"x": 4}, "b": 2.0, "c": True}])
    assert found == {"a": {"x": 2.5}, "b": 2.0}


def test_the_command_writes_page_record_and_sheet_and_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(Tools, "any_landmarker", Drawn())
    monkeypatch.setattr(Tools, "anchors", [X264])
    monkeypatch.setattr(sys, "argv", [
        "rungs", str(folder / "clips"), str(tmp_path), "--encoded", str(folder), "--bundle",
        str(folder / "bundle"), "--frames", "4", "--window", "6", "--decoded-frames", "12",
        "--teachers", str(tmp_path),
    ])  # fmt: skip
    rungs.main()
    record = json.loads((tmp_path / "rungs.json").read_text())
    page = (tmp_path / "rungs.md").read_text()
    assert record["sizes"] == [16, 32, 64]
    for size in (16, 32, 64):
        assert f"## At {size} px" in page
    psnr = record["clips"]["a"]["rungs"]["64"]["ours"]["psnr"]
    assert f"{psnr:.2f}" in page
    assert set(record["clips"]["a"]["decode"]) == {"16", "64"}
    sheet = cv2.imread(str(tmp_path / "a_rungs.png"))
    rows = record["clips"]["a"]["sheet"]["rows"]
    names = [row.split(" at ")[0] for row in rows]
    assert names == ["source", "ours", X264.name, "16 px enlarged"]
    assert sheet.shape[:2] == (16 + 64 * len(rows), 64 * 4)
    monkeypatch.setattr(rungs, "PROBES", {name: pytest.fail for name in rungs.PROBES})
    rungs.main()
    assert json.loads((tmp_path / "rungs.json").read_text())["clips"] == record["clips"]
    assert "Missed targets" in capsys.readouterr().out
