"""The player's decoder against the vectors and the reference decoder."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.format_spec.support import (
    MANIFEST,
    READABLE,
    REFUSED,
    VECTORS,
    data_of,
    reference,
    reference_facts,
)
from tests.player.support import needs_node, player_facts

pytestmark = needs_node

FACTS = ("frames", "motion", "times", "flags", "placement", "layers")


@cache
def facts() -> dict[str, dict[str, Any]]:
    """Return what the player reads of every vector, by name."""
    names = sorted(MANIFEST)
    return dict(zip(names, player_facts([VECTORS / name for name in names]), strict=True))


@pytest.mark.parametrize("name", READABLE)
def test_integers_of_a_vector_are_those_of_the_reference_decoder(name: str) -> None:
    expected, found = reference_facts(data_of(name)), facts()[name]
    assert "error" not in found, found.get("message")
    assert {key: found[key] for key in FACTS} == {key: expected[key] for key in FACTS}
    assert [bytes.fromhex(packet) for packet in found["packets"]] == expected["packets"]


@pytest.mark.parametrize("name", REFUSED)
def test_a_faulty_vector_is_refused_with_its_code_and_place(name: str) -> None:
    expected, found = MANIFEST[name]["expect"], facts()[name]
    assert found.get("error") == expected["error"]
    if "offset" in expected:
        assert found["offset"] == expected["offset"]


def _reference(data: bytes) -> tuple[str | None, list[list[int]]]:
    """Return the reference decoder's error, if any, and else the motion."""
    try:
        return None, reference.decode(data).motion.tolist()
    except reference.SglatError as error:
        return error.code, []


def test_flips_behind_a_mended_checksum_end_as_in_the_reference_decoder(tmp_path: Path) -> None:
    cases = []
    for name, every in (("valid/minimal.sglat", 11), ("valid/variable-rate.sglat", 29)):
        cases += list(_flipped(data_of(name), every))
    paths = []
    for number, data in enumerate(cases):
        paths.append(tmp_path / f"{number}.sglat")
        paths[-1].write_bytes(data)
    found = [(each.get("error"), each["motion"]) for each in player_facts(paths)]
    expected = [_reference(data) for data in cases]
    assert [code for code, _ in found] == [code for code, _ in expected]
    assert [f for f in found if f[0] is None] == [e for e in expected if e[0] is None]
    assert len({code for code, _ in expected}) > 8  # the flips reach many rules


def _flipped(data: bytes, every: int) -> list[bytes]:
    """Return copies with one bit of a payload flipped and the chunk's checksum made right."""
    copies, at = [], 8
    while at < len(data):
        end = at + 8 + int.from_bytes(data[at + 5 : at + 8], "little")
        for position in range(8 * (at + 8), 8 * end, every):
            changed = bytearray(data)
            changed[position >> 3] ^= 1 << (position & 7)
            crc = reference.crc32c(bytes(changed[at:end]))
            changed[end : end + 4] = crc.to_bytes(4, "little")
            copies.append(bytes(changed))
        at = end + 4
    return copies


def test_groups_before_the_damage_are_read_at_every_cut(tmp_path: Path) -> None:
    data = data_of("valid/two-groups.sglat")
    whole = reference.decode(data)
    ends = [_chunk_end(data, group.offset) for group in whole.groups]
    cuts = [*range(0, len(data), 23), *ends, *(end - 1 for end in ends)]
    paths = []
    for cut in cuts:
        paths.append(tmp_path / f"{cut}.sglat")
        paths[-1].write_bytes(data[:cut])
    for cut, found in zip(cuts, player_facts(paths), strict=True):
        complete = sum(end <= cut for end in ends)
        rows = [row for group in whole.groups[:complete] for row in group.values.tolist()]
        assert (found["error"], found["motion"]) == ("truncated", rows)


def _chunk_end(data: bytes, offset: int) -> int:
    return offset + 12 + int.from_bytes(data[offset + 5 : offset + 8], "little")
