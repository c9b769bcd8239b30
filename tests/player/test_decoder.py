"""Files as the page opens them: frames by number and time, sound, damage, limits."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sglat.bitstream import edits
from sglat.bitstream.writer import Writer
from tests.bitstream.samples import sample_file, sample_header, sample_identity
from tests.format_spec.support import MANIFEST, READABLE, REFUSED, VECTORS, data_of, reference
from tests.player.support import needs_node, run_node

pytestmark = needs_node


def played(paths: list[Path]) -> list[dict[str, Any]]:
    """Return what `decoder.js` shows of files."""
    return [json.loads(line) for line in run_node("play.mjs", *paths).splitlines()]


@cache
def shown() -> dict[str, dict[str, Any]]:
    """Return what the player shows of every vector."""
    names = [*READABLE, *REFUSED]
    return dict(zip(names, played([VECTORS / name for name in names]), strict=True))


@pytest.mark.parametrize("name", READABLE)
def test_frames_have_the_values_and_times_of_the_reference_decoder(name: str) -> None:
    found, file = shown()[name], reference.decode(data_of(name))
    assert found["frames"] == file.frames
    assert found["values_sha256"] == hashlib.sha256(file.values.astype("<f4").tobytes()).hexdigest()
    numerator, denominator = file.head.fields["rate"][:2]
    assert found["seconds"] == [time * numerator / denominator for time in file.times]
    flags = [flag for group in file.groups for flag in group.flags]
    assert found["held"] == [bool(flag & 1) for flag in flags]
    assert found["cut"] == [bool(flag & 2) for flag in flags]
    assert found["again"]
    assert found["is_same_in_steps"]
    assert found["damage"] is None


@pytest.mark.parametrize("name", READABLE)
def test_a_time_finds_the_frame_that_begins_there(name: str) -> None:
    found = shown()[name]
    count = found["frames"]
    assert (found["before"], found["after"]) == ((0, count - 1) if count else (None, None))
    if count and np.diff(found["seconds"], append=1e9).min() > 1e-3:
        assert found["found"] == list(range(count))
        assert found["between"] == list(range(count))


def test_placement_is_in_pixels_and_degrees() -> None:
    names = [name for name in READABLE if any(shown()[name]["placement"])]
    assert names
    for name in names:
        file = reference.decode(data_of(name))
        expected: list[list[float] | None] = []
        for number, group in enumerate(file.groups):
            track = file.placements.get(number)
            if track is None:
                expected += [None] * len(group.values)
            else:
                expected += (track.astype(np.float32) * file.head.placement_steps).tolist()
        assert shown()[name]["placement"] == expected


@pytest.mark.parametrize("name", REFUSED)
def test_a_faulty_file_is_refused_or_plays_up_to_the_fault(name: str) -> None:
    found = shown()[name]
    try:
        reference.decode(data_of(name))
    except reference.SglatError as error:
        assert found.get("error", found.get("damage")) == error.code
        if "error" not in found:
            assert found["frames"] > 0
            assert error.code in found["warnings"][0]


def test_a_cut_file_plays_what_is_before_the_cut(tmp_path: Path) -> None:
    data = data_of("valid/two-groups.sglat")
    whole = reference.decode(data)
    second = whole.groups[1].offset
    cut = tmp_path / "cut.sglat"
    cut.write_bytes(data[: second + 9])
    (found,) = played([cut])
    assert (found["frames"], found["damage"]) == (len(whole.groups[0].values), "truncated")
    first = whole.values[: found["frames"]].astype("<f4").tobytes()
    assert found["values_sha256"] == hashlib.sha256(first).hexdigest()


def test_an_identity_of_another_file_needs_the_hash_that_is_named(tmp_path: Path) -> None:
    whole, alone, look = sample_file(), io.BytesIO(), io.BytesIO()
    edits.detach(io.BytesIO(whole), alone, look)
    paths = [tmp_path / name for name in ("alone.sglat", "look.sglat")]
    for path, file in zip(paths, (alone, look), strict=True):
        path.write_bytes(file.getvalue())
    other = VECTORS / "valid/minimal.sglat"
    found = run_node("attach.mjs", paths[0], paths[1], other, paths[0]).splitlines()
    expected = reference.decode(whole).layers[0][0].integers.ravel().tolist()
    assert json.loads(found[0]) == expected
    assert found[1:] == ["identity-mismatch", "no-identity"]
    wrong = VECTORS / "invalid/other-identity.sglat"
    named = VECTORS / MANIFEST["invalid/other-identity.sglat"]["expect"]["identity"]
    assert run_node("attach.mjs", wrong, named).split() == ["identity-mismatch"]


def test_sound_has_the_times_and_sizes_of_the_packets() -> None:
    names = [name for name in READABLE if shown()[name]["packets"]]
    assert names
    for name in names:
        file = reference.decode(data_of(name))
        assert file.audio is not None
        numerator, denominator = file.audio["tb"]
        expected = [
            [pts * numerator / denominator, len(data)]
            for chunk in file.packets
            for pts, data in zip(chunk.pts, chunk.packets, strict=True)
        ]
        assert shown()[name]["packets"] == expected


def test_names_in_a_file_never_become_properties(tmp_path: Path) -> None:
    out = io.BytesIO()
    writer = Writer(out, replace(sample_header(), settings={"__proto__": "x", "constructor": "y"}))
    writer.put_identity(sample_identity(np.random.default_rng(0)))
    writer.put_metadata({"__proto__": "polluted", "toString": "no"})
    writer.close()
    path = tmp_path / "hostile.sglat"
    path.write_bytes(out.getvalue())
    (found,) = played([path])
    assert found["metadata"] == [["__proto__", "polluted"], ["toString", "no"]]
    record = json.loads(run_node("info.mjs", path))["record"]
    assert record["settings"] == {"__proto__": "x", "constructor": "y"}
    assert record["metadata"] == {"__proto__": "polluted", "toString": "no"}


def test_zeros_and_hostile_sizes_are_refused_at_once() -> None:
    wanted = ["layer-dense-bomb", "flags-bomb", "group-bomb", "index-bomb", "map-bomb"]
    paths = [VECTORS / "invalid" / f"{name}.sglat" for name in wanted]
    report = json.loads(run_node("bombs.mjs", *paths))
    assert all(entry["code"] for entry in report)
    assert report[0]["code"] == "bad-signature"
    assert max(entry["milliseconds"] for entry in report) < 1000
    assert max(entry["grown_bytes"] for entry in report) < 32 << 20
