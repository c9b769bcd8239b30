"""Sweep points are what the encoder writes, and cost only what must differ; solvers compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sglat.bitstream.reader import load_identity
from sglat.bundles.bundle import Bundle
from sglat.decoder.decode import DecodeConfig, Decoder
from sglat.encoder import analysis as analysis_module
from sglat.encoder.config import EncodeConfig
from sglat.encoder.encode import encode
from sglat.encoder.gauss_newton import SolverConfig
from sglat.errors import UsageError
from sglat_lab.bench import encodes, file_variants, solvers
from sglat_lab.bench.encodes import EncodeJob, requantized, run_job, solved_motion
from sglat_lab.measure.judges import Judges
from sglat_lab.measure.rates import file_cost
from tests.encoder.test_encode import draw_clip, drawn_bundle

CONFIG = EncodeConfig(tune_steps=6, identity_bytes=6_000, keep_workfile=True, force=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Path]:
    """Return a bundle and a folder with a clip, its file and its work file."""
    folder = Path(tmp_path_factory.mktemp("encoding"))
    bundle = drawn_bundle(folder / "tiny")
    draw_clip(folder / "in.mp4", audio=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analysis_module, "load_bundle", lambda name, device: bundle)
        encode(folder / "in.mp4", folder / "base.sglat", config(folder))
    return bundle, folder


@pytest.fixture(autouse=True)
def tiny(made: tuple[Bundle, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analysis_module, "load_bundle", lambda name, device: made[0])


def config(folder: Path, quality: int = 62) -> EncodeConfig:
    from dataclasses import replace

    return replace(CONFIG, workfile=folder / "base.work", quality=quality)


@pytest.mark.parametrize("quality", encodes.QUALITIES)
def test_a_point_of_the_quality_sweep_is_what_the_encoder_writes(
    made: tuple[Bundle, Path], tmp_path: Path, quality: int
) -> None:
    _, folder = made
    encode(folder / "in.mp4", tmp_path / "whole.sglat", config(folder, quality))
    requantized(
        folder / "base.sglat", folder / "base.work", tmp_path / "point.sglat", quality=quality
    )
    assert (tmp_path / "point.sglat").read_bytes() == (tmp_path / "whole.sglat").read_bytes()


def test_the_quality_sweep_spends_less_for_larger_steps(
    made: tuple[Bundle, Path], tmp_path: Path
) -> None:
    _, folder = made
    costs = []
    for quality in (26, 74):
        path = tmp_path / f"{quality}.sglat"
        requantized(folder / "base.sglat", folder / "base.work", path, quality=quality)
        costs.append(file_cost(path).running_bytes)
    assert costs[0] < costs[1]


def test_another_identity_size_shares_the_early_stages(
    made: tuple[Bundle, Path], tmp_path: Path
) -> None:
    _, folder = made
    job = EncodeJob(
        video=folder / "in.mp4", target=tmp_path / "small.sglat", bundle="tiny", tune_steps=6,
        identity_bytes=4_000, shares=folder / "base.work",
    )  # fmt: skip
    encodes.share_stages(folder / "base.work", job.work)
    before = stamps(job.work)
    record = run_job(job)
    assert stamps(job.work) == before  # nothing of them was made again
    assert record["bytes"]["identity"] <= 4_000
    assert solved_motion(job.work).shape == (9, 34)
    assert record["peak_memory_megabytes"] > 0


def stamps(work: Path) -> dict[str, int]:
    files = [f for stage in encodes.SHARED_STAGES for f in (work / stage).iterdir()]
    assert files
    return {str(f.relative_to(work)): f.stat().st_mtime_ns for f in files}


def test_a_finished_encoding_is_not_done_again(made: tuple[Bundle, Path], tmp_path: Path) -> None:
    _, folder = made
    job = EncodeJob(
        video=folder / "in.mp4", target=tmp_path / "a.sglat", bundle="tiny", tune_steps=2
    )
    first = run_job(job)
    job.target.unlink()  # a second encoding would write it
    assert run_job(job) == first
    assert not job.target.exists()


def test_without_a_work_file_there_is_nothing_to_round_anew(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no-work-file"):
        solved_motion(tmp_path / "none.work")


def test_the_person_of_a_file_renders_what_the_decoder_shows(made: tuple[Bundle, Path]) -> None:
    bundle, folder = made
    path = folder / "base.sglat"
    motion = file_variants.parse(path).motion
    numbers = torch.from_numpy((motion.values * motion.steps).astype(np.float32))
    with torch.no_grad():
        rendered = solvers.person_in(path, bundle).render(numbers).clamp(-1, 1)
    with path.open("rb") as file:
        exact = DecodeConfig(half=False)
        shown = [f.picture for f in Decoder(file, bundle=bundle, config=exact).frames()]
    own = ((rendered + 1) * 127.5).permute(0, 2, 3, 1).numpy()
    assert len(load_identity(path).layers) > 1
    assert np.abs(own - np.stack(shown)).max() <= 2


@pytest.fixture(scope="module")
def piece(made: tuple[Bundle, Path]) -> solvers.Piece:
    bundle, folder = made
    points = np.random.default_rng(0).random((3, 478, 2)).astype(np.float32)
    crops = np.random.default_rng(1).integers(0, 255, (3, 16, 16, 3)).astype(np.uint8)
    return solvers.piece_of(
        folder / "base.sglat", folder / "base.work", bundle, crops, points, first=2
    )


def compared(piece: solvers.Piece, bundle: Bundle, epochs: int) -> dict:
    return solvers.compare_solvers(piece, bundle, Judges(), epochs=epochs, iterations=3)


def test_a_solver_cut_short_stands_where_the_whole_one_was(
    piece: solvers.Piece, made: tuple[Bundle, Path]
) -> None:
    whole, cut = (compared(piece, made[0], epochs)["paper"] for epochs in (5, 2))
    assert [p["psnr"] for p in whole][:2] == pytest.approx([p["psnr"] for p in cut], abs=1e-4)


def test_passes_are_counted_forwards_and_backwards(
    piece: solvers.Piece, made: tuple[Bundle, Path]
) -> None:
    found = compared(piece, made[0], 2)
    one, two = (point["passes"] for point in found["paper"])
    assert two - one == pytest.approx(3)  # forwards, and backwards twice
    fast = [point["passes"] for point in found["fast"]]
    assert np.diff(fast[:-1]) == pytest.approx([1, 1, 1])
    config, count = SolverConfig(), len(piece.start)
    steps = config.iterations + config.fresh_iterations + config.fresh * 35 / count
    assert fast[-1] - fast[0] == pytest.approx(steps)  # the whole of it, in one window
    frames = len(solved_motion(made[1] / "base.work"))
    assert fast[0] == pytest.approx(1 + 8 * 35 / frames)


def test_both_solvers_start_from_the_same_numbers(
    piece: solvers.Piece, made: tuple[Bundle, Path]
) -> None:
    found = compared(piece, made[0], 2)
    assert found["fast"][0]["psnr"] == pytest.approx(found["start"]["psnr"])
    assert found["fast"][-1]["psnr"] > found["start"]["psnr"]
