"""A person in the player against Python: tuned weights, style vectors, rungs, refusals."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sglat.bitstream import edits
from sglat.bitstream.reader import Reader
from sglat.bitstream.records import DenseDelta, QuantizedTensor
from sglat.bundles.bundle import Bundle, load_bundle
from sglat.decoder.synthesizer import Synthesizer, held_rungs, retarget
from sglat.player.pack import dequantize_filters, is_filter, pack_weights, quantize_filters
from tests.player.looks import look_file
from tests.player.support import needs_node, run_node
from tests.support.tolerances import PLAYER_STYLE_ATOL, PLAYER_WEIGHT_ATOL

PAGE_BYTES = 20_000_000


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """Return the embedded bundle."""
    return load_bundle("mini")


@pytest.fixture(scope="module")
def exact(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return packed weights with filters as stored."""
    path = tmp_path_factory.mktemp("weights") / "weights16.bin"
    path.write_bytes(pack_weights(bundle, filter_bits=16))
    return path


def test_weights_leave_room_in_the_page(bundle: Bundle) -> None:
    assert len(pack_weights(bundle)) * 4 / 3 < PAGE_BYTES / 2  # in base64


@torch.no_grad()
def test_pictures_of_8_bit_filters_stay_within_45_db_of_the_bundle(bundle: Bundle) -> None:
    reader = Reader(io.BytesIO(look_file(bundle)))
    motion = torch.from_numpy(reader.read_motion().dequantize())[:1]
    whole = Synthesizer.of(bundle.at(512))
    assert reader.identity is not None
    tuned = whole.tuned(reader.identity.weight_deltas())
    person = whole.person(reader.identity)
    expected = tuned.render(person, motion).clamp(-1, 1)
    coarse = {}
    for name, weight in whole.generator.named_parameters():
        if is_filter(name, weight):
            change = dict(tuned.generator.named_parameters())[name] - weight
            coarse[name] = dequantize_filters(*quantize_filters(weight)) + change
    found = tuned.render(person, motion, weights=coarse).clamp(-1, 1)
    assert coarse
    assert float(10 * torch.log10(4 / (found - expected).square().mean())) > 45


def in_player(weights: Path, folder: Path, *files: bytes) -> list[tuple[dict[str, Any], Any]]:
    """Return what the player makes of files: facts and all numbers, one after the other."""
    paths = []
    for number, data in enumerate(files):
        paths.append(folder / f"{number}.sglat")
        paths[-1].write_bytes(data)
    run_node("styles.mjs", weights, folder, *paths)
    return [
        (
            json.loads((folder / f"{number}.json").read_text()),
            np.fromfile(folder / f"{number}.bin", "<f4"),
        )
        for number in range(len(files))
    ]


@pytest.fixture(scope="module")
def swapped(bundle: Bundle) -> bytes:
    """Return a file whose motion is another person's."""
    out = io.BytesIO()
    motion, look = (io.BytesIO(look_file(bundle, seed=seed)) for seed in (1, 2))
    edits.swap(motion, look, out)
    return out.getvalue()


@needs_node
@torch.no_grad()
def test_weights_and_styles_are_those_of_the_decoder(
    bundle: Bundle, exact: Path, swapped: bytes, tmp_path: Path
) -> None:
    files = [
        look_file(bundle),
        look_file(bundle, resolution=128),
        look_file(bundle, is_detached_rung=True),
        swapped,
    ]
    for data, (facts, numbers) in zip(files, in_player(exact, tmp_path, *files), strict=True):
        _compare(bundle, data, facts, numbers)


def _compare(bundle: Bundle, data: bytes, facts: dict[str, Any], numbers: Any) -> None:
    reader = Reader(io.BytesIO(data))
    motion = torch.from_numpy(reader.read_motion().dequantize())[facts["frames"]]
    identity, at = reader.identity, bundle.of_file(reader.header)
    assert identity is not None
    assert facts["rungs"] == list(held_rungs(at, identity))
    tuned = Synthesizer.of(at).tuned(identity.weight_deltas())
    parts = np.split(numbers, np.cumsum(facts["sizes"])[:-1])
    weights = dict(zip(facts["names"], parts, strict=False))
    expected = dict(tuned.generator.named_parameters())
    assert set(weights) == {name for name in expected if not name.startswith("mapping.")}
    for name, weight in weights.items():
        np.testing.assert_allclose(
            weight, expected[name].numpy().ravel(), atol=PLAYER_WEIGHT_ATOL, err_msg=name
        )
    shown = tuned.up_to(facts["rungs"][-1])
    person = tuned.person(identity)
    neutral = reader.motion_neutral
    driver = None if neutral is None else torch.from_numpy(neutral.copy())
    styles = iter(parts[len(weights) :])
    for transfer in ("relative", "absolute"):
        wanted = retarget(motion, puppet=person.neutral, driver=driver, transfer=transfer)  # type: ignore[arg-type]
        rows = shown.styles(person, wanted)
        for frame in range(len(motion)):
            for row in rows:
                found = next(styles)
                np.testing.assert_allclose(found, row[frame].numpy(), atol=PLAYER_STYLE_ATOL)
    assert next(styles, None) is None


def _wrong_shape() -> tuple[DenseDelta, ...]:
    values = QuantizedTensor(values=np.ones(4, np.int32), step=1.0)
    return (DenseDelta(name="layers.16.bias", values=values),)


def _infinite() -> tuple[DenseDelta, ...]:
    values = QuantizedTensor(values=np.full(3, 1000, np.int32), step=3e38)
    return (DenseDelta(name="layers.16.bias", values=values),)


def _upper() -> tuple[DenseDelta, ...]:
    values = QuantizedTensor(values=np.ones(3, np.int32), step=1.0)
    return (DenseDelta(name="layers.22.bias", values=values),)


@needs_node
def test_files_for_other_weights_are_refused_in_one_line(
    bundle: Bundle, exact: Path, tmp_path: Path
) -> None:
    cases = {
        "wrong-decoder": look_file(bundle, decoder_id=bytes(32)),
        "wrong-decoder ": look_file(bundle, upper_id=bytes(32)),
        "wrong-resolution": look_file(bundle, resolution=128, deltas=()).replace(
            b"\xa4size\x93\xcc\x80", b"\xa4size\x93\xcc\x81"
        ),
        "bad-delta": look_file(bundle, deltas=_wrong_shape()),
        "bad-delta ": look_file(bundle, deltas=_infinite()),
        "bad-delta  ": look_file(bundle, resolution=128, deltas=_upper()),
    }
    paths = []
    for number, data in enumerate(cases.values()):
        paths.append(tmp_path / f"{number}.sglat")
        paths[-1].write_bytes(_resealed(data))
    lines = run_node("refusals.mjs", exact, *paths).splitlines()
    assert [line.split(":")[0] for line in lines] == [code.strip() for code in cases]


def _resealed(data: bytes) -> bytes:
    """Return a file with the checksums of its chunks made right."""
    from sglat.bitstream.chunks import crc32c

    out, at = bytearray(data), 8
    while at < len(data):
        end = at + 8 + int.from_bytes(data[at + 5 : at + 8], "little")
        out[end : end + 4] = crc32c(bytes(out[at:end])).to_bytes(4, "little")
        at = end + 4
    return bytes(out)
