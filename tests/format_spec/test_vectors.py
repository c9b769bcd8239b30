"""Codec and reference decoder read every vector to the numbers of the manifest, or refuse it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sglat.bitstream.reader import Reader, check_identity_file
from sglat.errors import FormatError
from tests.format_spec.support import (
    MANIFEST,
    READABLE,
    REFUSED,
    codec_facts,
    data_of,
    reference,
    reference_facts,
)


def codec_side_by_side(data: bytes) -> dict[str, Any]:
    return codec_facts(data, is_batch=True)


READERS = {"codec": codec_facts, "side_by_side": codec_side_by_side, "reference": reference_facts}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS.keys())
@pytest.mark.parametrize("name", READABLE)
def test_legal_vector_gives_the_expected_integers(
    name: str, reader: Callable[[bytes], dict[str, Any]]
) -> None:
    expected = dict(MANIFEST[name]["expect"])
    found = reader(data_of(name))
    motion = np.array(found["motion"], "<i4").reshape(-1, 34)
    assert hashlib.sha256(motion.tobytes()).hexdigest() == expected.pop("motion_sha256")
    if "audio_sha256" in expected:
        packets = found["packets"]
        assert hashlib.sha256(b"".join(packets)).hexdigest() == expected.pop("audio_sha256")
        assert len(packets) == expected.pop("audio_packets")
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize("name", READABLE)
def test_both_readers_agree_on_all_they_read(name: str) -> None:
    data = data_of(name)
    assert codec_facts(data) == reference_facts(data)


@pytest.mark.parametrize("name", READABLE)
def test_dequantized_values_are_the_same_to_the_last_bit(name: str) -> None:
    data = data_of(name)
    with np.errstate(over="ignore"):
        found = [group.motion.dequantize() for group in Reader(io.BytesIO(data)).groups()]
        expected = reference.decode(data).values
    joined = np.concatenate([np.zeros((0, 34), np.float32), *found])
    assert joined.tobytes() == expected.astype(np.float32).tobytes()


@pytest.mark.parametrize("name", READABLE)
def test_both_readers_name_the_same_identity(name: str) -> None:
    data = data_of(name)
    expected = reference.decode(data).identity_hash or None
    assert Reader(io.BytesIO(data)).identity_sha256 == expected


@pytest.mark.parametrize("name", REFUSED)
def test_illegal_vector_is_refused_with_its_code(name: str) -> None:
    for read in (codec_facts, codec_side_by_side):
        with pytest.raises(FormatError) as caught:
            read(data_of(name))
        assert caught.value.code == MANIFEST[name]["expect"]["error"]


@pytest.mark.parametrize("name", REFUSED)
def test_reference_refuses_with_the_same_code(name: str) -> None:
    with pytest.raises(reference.SglatError) as caught:
        reference.decode(data_of(name))
    assert caught.value.code == MANIFEST[name]["expect"]["error"]


@pytest.mark.parametrize("name", REFUSED)
def test_refusal_is_one_line_with_expected_found_and_place(name: str) -> None:
    with pytest.raises(FormatError) as caught:
        codec_facts(data_of(name))
    error = caught.value
    assert "\n" not in str(error)
    assert "expected" in error.message
    assert error.offset is not None
    assert 0 <= error.offset <= len(data_of(name))
    if "offset" in MANIFEST[name]["expect"]:
        assert error.offset == MANIFEST[name]["expect"]["offset"]


def test_another_identity_than_the_referenced_one_is_refused() -> None:
    name = "invalid/other-identity.sglat"
    expected = MANIFEST[name]["expect"]
    reader = Reader(io.BytesIO(data_of(name)))
    found = Reader(io.BytesIO(data_of(expected["identity"]))).identity_sha256
    assert found is not None
    with pytest.raises(FormatError) as caught:
        check_identity_file(reader, found)
    assert caught.value.code == expected["error"] == "identity-mismatch"
