"""Layers above the base resolution: choice of the resolution, tuning on windows, the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import sglat
from sglat.bitstream.reader import open_reader
from sglat.bitstream.records import DeltaLayer, LatentLayer, weight_resolution
from sglat.bundles.bundle import Bundle
from sglat.decoder.decode import Decoder
from sglat.encoder import analysis as analysis_module
from sglat.encoder.detail import LEAST_FACE, DetailTuner, Window, choose_resolution
from sglat.encoder.encode import encode
from sglat.errors import BundleMismatchError
from tests.bundles.tiny import add_upper_layers, make_tiny_bundle
from tests.encoder.test_encode import CONFIG, Killed, draw_clip, see_drawn_faces

FINE = replace(CONFIG, identity_bytes=16_000, tune_steps=12)


def fine_bundle(folder: Path) -> Bundle:
    """Return a random bundle of 16 px with upper layers to 64 px that finds drawn faces."""
    make_tiny_bundle(folder)
    return see_drawn_faces(add_upper_layers(folder))


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    bundle = fine_bundle(tmp_path / "tiny")
    monkeypatch.setattr(analysis_module, "load_bundle", lambda name, device: bundle)
    return bundle


@pytest.mark.parametrize(
    ("side", "resolution"), [(10, 16), (32 * LEAST_FACE - 1, 16), (32 * LEAST_FACE, 32), (400, 64)]
)
def test_a_face_smaller_than_a_rung_is_not_encoded_at_it(
    bundle: Bundle, side: float, resolution: int
) -> None:
    placement = np.tile([50.0, 50.0, side, 0.0], (5, 1))
    assert choose_resolution(bundle, placement, None) == resolution
    assert choose_resolution(bundle, placement, 32) == 32


def test_a_resolution_that_the_bundle_lacks_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    config = replace(FINE, resolution=48)
    with pytest.raises(BundleMismatchError, match="renders 16, 32 or 64 px, found 48 px"):
        encode(draw_clip(tmp_path / "in.mp4", 3), tmp_path / "out.sglat", config)


def test_the_file_has_a_layer_for_each_upper_rung_and_keeps_the_budget(
    bundle: Bundle, tmp_path: Path
) -> None:
    clip = draw_clip(tmp_path / "in.mp4")
    result = encode(clip, tmp_path / "out.sglat", replace(FINE, resolution=64))
    with open_reader(tmp_path / "out.sglat") as reader:
        header, identity = reader.header, reader.identity
    assert identity is not None
    assert (header.resolution, header.num_ws, header.upper_id) == (64, 10, bundle.at(64).upper_id)
    assert header.read_version == (1, 2)
    tops = [
        max(weight_resolution(delta.name) for delta in layer.deltas)
        for layer in identity.layers
        if isinstance(layer, DeltaLayer)
    ]
    assert tops[-2:] == [32, 64] and set(tops[:-2]) == {16}
    latent = identity.layers[0]
    assert isinstance(latent, LatentLayer)
    rows = latent.latent.values
    np.testing.assert_array_equal(rows[6:], np.repeat(rows[5:6], 4, axis=0))
    assert result.bytes_by_stream["identity"] <= FINE.identity_bytes
    frames = list(sglat.decode(tmp_path / "out.sglat", bundle=bundle))
    assert {frame.picture.shape for frame in frames} == {(64, 64, 3)}


def test_an_identity_too_small_for_a_rung_s_layers_goes_without_them(
    bundle: Bundle, tmp_path: Path
) -> None:
    clip = draw_clip(tmp_path / "in.mp4", 4)
    config = replace(FINE, identity_bytes=4_000, resolution=64, self_check=False)
    result = encode(clip, tmp_path / "out.sglat", config)
    assert result.bytes_by_stream["identity"] <= 4_000
    with (tmp_path / "out.sglat").open("rb") as file:
        assert Decoder(file, bundle=bundle).rungs[-1] < 64
    result = encode(clip, tmp_path / "own.sglat", replace(config, resolution=None))
    with open_reader(tmp_path / "own.sglat") as reader:
        assert reader.header.resolution == 16


def test_an_interrupted_detail_stage_ends_with_the_same_bytes(
    bundle: Bundle, tmp_path: Path
) -> None:
    clip = draw_clip(tmp_path / "in.mp4", 4)
    config = replace(FINE, resolution=32, self_check=False)
    encode(clip, tmp_path / "whole.sglat", config)

    def kill(phase: str, done: int, total: int) -> None:
        if (phase, done) == ("detail", 7):
            raise Killed

    with pytest.raises(Killed):
        encode(clip, tmp_path / "cut.sglat", config, progress=kill)
    encode(clip, tmp_path / "cut.sglat", config)
    assert (tmp_path / "cut.sglat").read_bytes() == (tmp_path / "whole.sglat").read_bytes()


def test_tuning_lowers_the_loss(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = []
    step = DetailTuner.step

    def record(tuner: DetailTuner) -> float:
        losses.append(step(tuner))
        return losses[-1]

    monkeypatch.setattr(DetailTuner, "step", record)
    clip = draw_clip(tmp_path / "in.mp4", 4)
    config = replace(FINE, resolution=64, tune_steps=60, self_check=False)
    encode(clip, tmp_path / "out.sglat", config)
    assert len(losses) == 60
    assert np.mean(losses[-10:]) < 0.9 * losses[0]


@pytest.mark.parametrize(("top", "left"), [(0, 0), (5, 3), (8, 0), (8, 8)])
def test_a_window_without_its_margin_is_the_whole_picture_s(
    bundle: Bundle, top: int, left: int
) -> None:
    """Windows of features render the same pixels as whole ones, but for the margin."""
    generator = bundle.at(64).generator
    torch.manual_seed(0)
    window = Window(top=top, left=left, side=12, whole=20)
    x, image = torch.randn(1, 8, 20, 20), torch.randn(1, 3, 20, 20)
    styles = [torch.rand(1, layer.entry.channels) + 0.5 for layer in generator.layers[-6:]]
    whole = generator.upper_rungs(x, image, styles)
    part = generator.upper_rungs(window.of(x), window.of(image), styles)
    for shown, wanted in zip(part, whole, strict=True):
        torch.testing.assert_close(window.inner(shown), window.inner(window.of(wanted)))
