"""SPEC.md, the code and the vectors name the same codes and numbers."""

from __future__ import annotations

import re

import pytest

from sglat.bitstream import constants, rans
from tests.format_spec.support import FORMAT_SPEC, MANIFEST, data_of, reference

SPEC = (FORMAT_SPEC / "SPEC.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """Return the text of one section."""
    start = SPEC.index(f"\n## {title}")
    end = SPEC.find("\n## ", start + 1)
    return SPEC[start:end]


def number(text: str) -> int:
    """Return the value of `2^16`, `2^24 − 1` or `68 exactly`."""
    match = re.fullmatch(r"(?:(\d+)\^)?(\d+)(?: − (\d+))?(?: exactly)?", text.strip())
    assert match, text
    base, power, less = match.groups()
    return (int(base) ** int(power) if base else int(power)) - int(less or 0)


def spec_codes() -> list[str]:
    return re.findall(r"^\| `([a-z-]+)` \|", section("14. Error codes"), re.MULTILINE)


def test_codes_are_the_same_in_specification_and_vectors() -> None:
    in_vectors = {e["expect"]["error"] for e in MANIFEST.values() if "error" in e["expect"]}
    assert set(spec_codes()) == in_vectors


def test_every_code_that_the_text_mentions_is_in_the_table() -> None:
    named = set(re.findall(r"`((?:bad|no|unknown|duplicate|trailing|unsupported)-[a-z]+)`", SPEC))
    assert named <= set(spec_codes())


def test_chunk_table_is_the_same_in_specification_and_code() -> None:
    rows = re.findall(
        r"^\| ([A-Z]{4}) \| (\d) \| ([^|]+) \| ([^|]+) \|", section("2. Signature"), re.MULTILINE
    )
    in_spec = {kind: (int(flags), number(cap), "exactly" in cap) for kind, flags, cap, _ in rows}
    in_code = {
        kind: (rule.flags, rule.max_bytes, rule.min_bytes == rule.max_bytes)
        for kind, rule in constants.CHUNKS.items()
    }
    assert in_spec == in_code


def test_single_chunks_are_the_same_in_reference_and_code() -> None:
    in_reference = {kind.decode(): once for kind, (_, _, once) in reference.CHUNKS.items()}
    assert in_reference == {kind: rule.is_single for kind, rule in constants.CHUNKS.items()}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("M", constants.TOTAL),
        ("L", constants.LEAST_STATE),
        ("K", constants.REACH),
        ("SCALES", constants.SCALES),
    ],
)
def test_coder_constants_are_those_of_the_specification(name: str, value: int) -> None:
    match = re.search(rf"^\| {name} \| ([\d^]+) \|", section("5. The entropy coder"), re.MULTILINE)
    assert match
    assert number(match[1]) == value


def test_scale_table_is_the_same_everywhere() -> None:
    in_spec = [int(n) for n in re.findall(r"\b\d{9,10}\b", section("A. The scale table"))]
    assert len(in_spec) == 40
    assert in_spec == list(reference.THETA)
    assert in_spec == list(rans.THETA)


def test_frequencies_are_the_same_in_reference_and_code() -> None:
    table = rans.boundaries()
    rows = rans.scale_rows()
    for scale in range(constants.SCALES):
        row = int(rows[reference.middle(scale)])
        for phase in range(-8, 8):
            assert table[row + phase].tolist() == reference.boundaries(scale, phase)


def test_scale_of_every_magnitude_is_the_same_in_reference_and_code() -> None:
    rows = rans.scale_rows()
    first = int(rows[reference.middle(0)])
    stride = int(rows[reference.middle(1)]) - first
    for magnitude in range(0, 65536, 7):
        assert int(rows[magnitude]) == first + stride * reference.scale_of(magnitude)


def test_signature_is_that_of_the_specification() -> None:
    match = re.search(r"Signature, 8 bytes: `([0-9A-F ]+)`", SPEC)
    assert match
    assert bytes.fromhex(match[1]) == constants.SIGNATURE == reference.SIGNATURE


def test_worked_example_is_listed_byte_by_byte() -> None:
    data = data_of("valid/worked-example.sglat")
    listing = section("16. Worked example").split("```")[1]
    lines = re.findall(r"^ {0,3}( {3}|\d+)  ((?:[0-9A-F]{2} ?)+)", listing, re.MULTILINE)
    assert len(lines) > 40
    at = end = 0
    for place, text in lines:
        shown = bytes.fromhex(text)
        at = int(place) if place.strip() else end
        assert data[at : at + len(shown)] == shown
        end = at + len(shown)
    assert end == len(data)
