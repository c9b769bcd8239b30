"""SPEC.md, the code and the vectors say the same."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from sglat.bitstream import constants, integers, motion_coder, scene
from sglat.bitstream.constants import CHUNKS, MAX_PAYLOAD
from sglat.bitstream.rans import THETA
from tests.bitstream.samples import tiny_file
from tests.support.shared import ERROR_CODES, REPOSITORY

FORMAT = REPOSITORY / "format_spec"
SPEC = (FORMAT / "SPEC.md").read_text()
CODEC = REPOSITORY / "codec" / "sglat"


def section(title: str) -> str:
    """Return the text of one section of SPEC.md."""
    _, found, rest = SPEC.partition(f"\n## {title}")
    assert found, title
    return rest.partition("\n## ")[0]


def size_of(text: str) -> int:
    """Return the number that a cell such as `2^24 - 1` or `48 exactly` says."""
    words = text.replace("−", "-").replace(" exactly", "")
    power = re.fullmatch(r"2\^(\d+)( - 1)?", words)
    if power is None:
        return int(words)
    return (1 << int(power[1])) - (1 if power[2] else 0)


def test_every_code_that_the_bitstream_raises_is_in_the_table() -> None:
    raised: set[str] = set()
    for path in (CODEC / "bitstream").glob("*.py"):
        if path.name == "scene.py":  # another format, of its own document
            continue
        text = path.read_text()
        raised.update(re.findall(r'FormatError\(\s*"([a-z-]+)"', text))
        raised.update(re.findall(r'\.error\(\s*"([a-z-]+)"', text))
        raised.update(re.findall(r'code="([a-z-]+)"', text))
    assert raised == ERROR_CODES


def test_every_code_of_scenes_is_in_their_table() -> None:
    table = re.findall(r"^\| `(scene-[a-z]+)` \|", (FORMAT / "SCENE.md").read_text(), re.MULTILINE)
    raised = re.findall(r'"(scene-[a-z]+)"', (CODEC / "bitstream" / "scene.py").read_text())
    assert table == list(scene.CODES)
    assert set(raised) == set(scene.CODES)


def test_each_code_has_an_invalid_vector_and_no_vector_has_another_code() -> None:
    manifest = json.loads((FORMAT / "vectors" / "manifest.json").read_text())
    shown = {entry["expect"].get("error") for entry in manifest["vectors"].values()} - {None}
    assert shown == ERROR_CODES


def test_the_chunk_table_is_that_of_the_code() -> None:
    rows = re.findall(
        r"^\| ([A-Z]{4}) \| (\d) \| ([^|]+) \| ([^|]+) \|",
        section("2. Signature, chunks, order"),
        re.MULTILINE,
    )
    listed = {type_: (int(flags), size_of(cap.strip())) for type_, flags, cap, _ in rows}
    assert listed == {type_: (rule.flags, rule.max_bytes) for type_, rule in CHUNKS.items()}


def test_the_limits_are_those_of_the_code() -> None:
    text = section("3. Limits").replace("−", "-")
    for row in (
        "| frames in a file | 2^24 |",
        "| frames in a group | 1 … 1024 |",
        "| integers in one layer | ≤ 2^16 + 512 · (bytes of its stream), and ≤ 2^23 |",
        "| integers in all layers of an identity together | ≤ 2^24 |",
        "| entries in one layer | 1 … 4096 |",
        "| axes of a tensor, product of its shape | 1 … 4, ≤ 2^26 |",
        "| time stamps (ticks) | \\|t\\| ≤ 2^53 |",
        "| packets in an APKT | 1 … 4096 |",
        "| layers of an identity | 1 … 64 |",
    ):
        assert row in text
    assert (constants.MAX_FRAMES, constants.MAX_GROUP_FRAMES) == (1 << 24, 1024)
    assert (constants.LAYER_VALUES_FREE, constants.LAYER_VALUES_PER_BYTE) == (1 << 16, 512)
    assert (constants.MAX_LAYER_VALUES, constants.MAX_LAYER_ENTRIES) == (1 << 23, 4096)
    assert constants.MAX_IDENTITY_VALUES == 1 << 24
    assert (constants.MAX_AXES, constants.MAX_TENSOR) == (4, 1 << 26)
    assert (constants.MAX_TICKS, constants.MAX_PACKETS) == (1 << 53, 4096)
    assert (constants.MAX_LAYERS, constants.MAX_VALUE) == (64, (1 << 20) - 1)
    assert MAX_PAYLOAD == (1 << 24) - 1


def test_the_scale_table_is_that_of_the_code() -> None:
    numbers = re.findall(r"\d{9,10}", section("A. The scale table"))
    assert tuple(map(int, numbers)) == THETA


def test_the_formulas_name_the_constants_of_the_code() -> None:
    coder, motion = section("5. The entropy coder"), section("7. Motion")
    assert f"m = ({integers.BASE} + {integers.FAST_WEIGHT} · fast" in coder
    assert f"{integers.SLOW_WEIGHT} · slow) >> 8" in coder
    assert f"m  = ({motion_coder.BASE} + {motion_coder.FAST_WEIGHT} · fast[c]" in motion
    assert f"+ {motion_coder.SLOW_WEIGHT} · slow[c]" in motion
    fast, slow = motion_coder.FAST_ACTIVITY_WEIGHT, motion_coder.SLOW_ACTIVITY_WEIGHT
    lively = f"{fast} · fast[c] + {slow} · slow[c]"
    assert lively in motion
    assert f"(({motion_coder.NEAR_WEIGHT} · a1 + {motion_coder.FAR_WEIGHT} · a2) << 8)" in motion
    assert f"E = {motion_coder.PRIOR}" in motion
    assert f"the scale of m = {motion_coder.FIRST_MAGNITUDE}" in motion
    starts = f"still[0] = {motion_coder.STILL_START[0]},  still[1] = {motion_coder.STILL_START[1]}"
    assert starts in motion


def test_the_worked_example_is_the_tiny_file() -> None:
    """Every line of the listing whose bytes are written out stands at its place in the file."""
    data = tiny_file()
    listing = section("16. Worked example").split("```")[1]
    rows = re.findall(r"^ *(\d+)  ((?:[0-9A-F]{2} )+) ", listing, re.MULTILINE)
    assert len(rows) > 40
    for offset, text in rows:
        expected = bytes.fromhex(text)
        assert data[int(offset) : int(offset) + len(expected)] == expected
    assert f"A file of {len(data)} bytes" in section("16. Worked example")


def test_the_magic_line_starts_with_the_signature() -> None:
    line = next(row for row in (FORMAT / "magic").read_text().splitlines() if row[0] == "0")
    text = line.split("\t")[2]
    assert text.encode().decode("unicode_escape").encode("latin-1") == constants.SIGNATURE


def test_the_schema_file_is_what_its_script_writes(tmp_path: Path) -> None:
    script = (FORMAT / "make_info_schema.py").read_text()
    copy = tmp_path / "make_info_schema.py"
    copy.write_text(script)
    scope: dict[str, object] = {"__file__": str(copy), "__name__": "schema"}
    exec(compile(script, str(copy), "exec"), scope)
    assert json.loads((FORMAT / "info.schema.json").read_text()) == scope["SCHEMA"]


def test_released_vectors_have_the_hashes_of_the_manifest() -> None:
    manifest = json.loads((FORMAT / "vectors" / "manifest.json").read_text())
    for name, entry in manifest["vectors"].items():
        data = (FORMAT / "vectors" / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry["sha256"], name
