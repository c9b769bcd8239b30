"""One file at several resolutions: rungs of the generator, layers cut off, other weights."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sglat.bitstream.edits import drop_layers, swap
from sglat.bitstream.reader import Reader, open_reader
from sglat.bitstream.records import (
    DeltaLayer,
    DenseDelta,
    Identity,
    LatentLayer,
    QuantizedTensor,
    weight_resolution,
)
from sglat.bundles.bundle import Bundle
from sglat.decoder.backdrop import StillBackdrop
from sglat.decoder.decode import DecodeConfig, Decoder
from sglat.errors import BundleError, BundleMismatchError
from tests.bundles.tiny import add_upper_layers, make_tiny_bundle
from tests.support.files import make_identity, write_file


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """16 px, and upper layers to 32 and 64 px."""
    folder = Path(tmp_path_factory.mktemp("bundle"))
    make_tiny_bundle(folder)
    return add_upper_layers(folder)


def fine_identity(bundle: Bundle, *, seed: int = 0) -> Identity:
    """Return a random identity with a layer of weight deltas for each upper rung."""
    identity = make_identity(bundle.at(64), seed=seed)
    table = bundle.at(64).config.style_table
    layers = []
    for rung in (32, 64):
        colours = next(e.index for e in table if e.resolution == rung and e.kind == "torgb")
        values = QuantizedTensor(values=np.array([9, -9, 5], np.int32), step=0.03125)
        layers.append(
            DeltaLayer(deltas=(DenseDelta(name=f"layers.{colours}.bias", values=values),))
        )
    return replace(identity, layers=(*identity.layers, *layers))


@pytest.fixture
def file(tmp_path: Path, bundle: Bundle) -> Path:
    return write_file(tmp_path / "a.sglat", bundle.at(64), identity=fine_identity(bundle))


def decoded(path: Path, bundle: Bundle, **config: object) -> tuple[np.ndarray, Decoder]:
    with path.open("rb") as file:
        decoder = Decoder(file, bundle=bundle, config=DecodeConfig(**config))
        return np.stack([frame.picture for frame in decoder.frames()]), decoder


def test_the_default_is_the_largest_rung(file: Path, bundle: Bundle) -> None:
    pictures, decoder = decoded(file, bundle)
    assert pictures.shape[1:] == (64, 64, 3)
    assert (decoder.rungs, decoder.notes) == ((16, 32, 64), [])


@pytest.mark.parametrize(("size", "rung"), [(8, 16), (16, 16), (17, 32), (32, 32), (40, 64)])
def test_the_smallest_sufficient_rung_is_rendered(
    file: Path, bundle: Bundle, size: int, rung: int
) -> None:
    pictures, decoder = decoded(file, bundle, size=size)
    assert pictures.shape[1:] == (size, size, 3)
    assert list(decoder._renderers) == [rung]
    assert decoder._renderers[rung].synthesizer.generator.config.resolution == rung


def test_the_lowest_rung_is_the_base_resolution_s_file(
    tmp_path: Path, file: Path, bundle: Bundle
) -> None:
    """The same person without the rows and layers of the upper rungs shows the same pictures."""
    whole = fine_identity(bundle)
    latent = whole.layers[0]
    assert isinstance(latent, LatentLayer)
    rows = replace(latent.latent, values=latent.latent.values[: bundle.num_ws])
    base = replace(whole, layers=(LatentLayer(latent=rows), whole.layers[1]))
    write_file(tmp_path / "base.sglat", bundle, identity=base)
    np.testing.assert_array_equal(
        decoded(file, bundle, size=16)[0], decoded(tmp_path / "base.sglat", bundle)[0]
    )


def test_layers_of_a_rung_that_are_cut_off_lower_the_resolution(file: Path, bundle: Bundle) -> None:
    whole, _ = decoded(file, bundle, size=16)
    for layers, rung in ((4, 64), (3, 32), (2, 16)):
        pictures, decoder = decoded(file, bundle, layers=layers)
        assert pictures.shape[1] == rung
        assert len(decoder.notes) == (rung < 64)
    assert decoder.notes == ["the identity lacks its layers for 64 px: shown at 16 px"]
    np.testing.assert_array_equal(pictures, whole)


def test_larger_pictures_than_any_rung_are_enlarged_with_a_note(file: Path, bundle: Bundle) -> None:
    pictures, decoder = decoded(file, bundle, size=80)
    assert pictures.shape[1] == 80
    assert decoder.notes == ["pictures of 64 px are enlarged to 80 px"]


@pytest.mark.parametrize(("scale", "rung"), [(0.2, 16), (1.0, 32), (8.0, 64)])
def test_a_pasted_face_is_rendered_as_large_as_it_is_in_the_frame(
    file: Path, bundle: Bundle, scale: float, rung: int
) -> None:
    with open_reader(file) as reader:
        sides = [
            group.placement.dequantize()[:, 2].max() for group in reader.groups() if group.placement
        ]
        source = reader.header.source_size
    assert source is not None and 17 <= max(sides) <= 32
    size = (round(source[0] * scale), round(source[1] * scale))
    backdrop = StillBackdrop(np.zeros((size[1], size[0], 3), np.uint8), has_face=False)
    with file.open("rb") as stream:
        decoder = Decoder(stream, bundle=bundle)
        list(decoder.frames(backdrop))
    assert max(decoder._renderers) == rung


def test_upper_layers_of_other_weights_are_refused(
    tmp_path: Path, file: Path, bundle: Bundle
) -> None:
    make_tiny_bundle(tmp_path / "other")
    with pytest.raises(BundleMismatchError, match="renders 16 px, found 64 px"):
        decoded(file, Bundle(tmp_path / "other"))
    with pytest.raises(BundleMismatchError, match="upper layers"):
        decoded(file, add_upper_layers(tmp_path / "other", seed=2))


def test_upper_layers_of_another_generator_are_refused(tmp_path: Path) -> None:
    make_tiny_bundle(tmp_path)
    bundle = add_upper_layers(tmp_path)
    bundle.module("generator").config = replace(bundle.config, channels=(12, 12, 9))
    with pytest.raises(BundleError, match="expected upper layers of a generator"):
        _ = bundle.at(64).generator


def test_a_swap_takes_the_resolution_of_the_identity(
    tmp_path: Path, file: Path, bundle: Bundle
) -> None:
    small = write_file(tmp_path / "small.sglat", bundle, seed=3)
    for motion, look, size in ((small, file, 64), (file, small, 16)):
        out = tmp_path / f"{size}.sglat"
        with motion.open("rb") as body, look.open("rb") as person, out.open("wb") as target:
            swap(body, person, target)
        assert decoded(out, bundle)[0].shape[1] == size


def test_dropping_layers_keeps_what_a_reader_must_know(file: Path) -> None:
    out = io.BytesIO()
    with file.open("rb") as stream:
        drop_layers(stream, out, keep=2)
    out.seek(0)
    with open_reader(file) as reader:
        before = reader.header
    after = Reader(out).header
    assert (after.read_version, after.upper_id) == ((1, 2), before.upper_id)


@pytest.mark.parametrize(
    ("name", "resolution"),
    [("const", 4), ("layers.0.weight", 4), ("layers.1.bias", 4), ("layers.2.weight", 8),
     ("layers.4.bias", 8), ("layers.5.weight", 16), ("layers.16.weight", 128),
     ("layers.17.weight", 256), ("layers.22.bias", 512), ("other", 4)],
)  # fmt: skip
def test_the_resolution_of_a_weight_follows_from_its_name(name: str, resolution: int) -> None:
    assert weight_resolution(name) == resolution


def test_names_agree_with_the_generator(bundle: Bundle) -> None:
    for entry in bundle.at(64).config.style_table:
        assert weight_resolution(f"layers.{entry.index}.weight") == entry.resolution
