"""Edits in the player against the product's: the same bytes where both have the operation."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sglat.bitstream import edits
from sglat.bitstream.edit_file import edit_motion
from sglat.bitstream.edit_grammar import parse_edit
from sglat.bitstream.extras import pack_provenance, unpack_provenance
from sglat.bitstream.info import verify
from sglat.bitstream.reader import Reader
from sglat.bitstream.records import Provenance
from tests.bitstream.samples import sample_file, tiny_file
from tests.format_spec.support import READABLE, data_of, reference
from tests.player.support import needs_node, run_node

pytestmark = needs_node


class Jobs:
    """Edits that one process of Node does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._jobs: list[dict[str, Any]] = []
        self._files = 0

    def put(self, data: bytes) -> str:
        """Write a file for a job; return its path."""
        self._files += 1
        path = self._folder / f"in{self._files}"
        path.write_bytes(data)
        return str(path)

    def add(self, kind: str, **options: Any) -> None:
        """Append a job."""
        out = str(self._folder / f"out{len(self._jobs)}.sglat")
        self._jobs.append({"kind": kind, "out": out, **options})

    def run(self) -> list[bytes | str]:
        """Return the files that were written, or the line of the error."""
        jobs = self._folder / "jobs.json"
        jobs.write_text(json.dumps(self._jobs))
        lines = run_node("edits.mjs", jobs).splitlines()
        return [
            Path(job["out"]).read_bytes() if line == "done" else line
            for job, line in zip(self._jobs, lines, strict=True)
        ]


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    """Return an empty list of jobs."""
    return Jobs(tmp_path)


def with_record(data: bytes, **changes: Any) -> bytes:
    """Return a file with another PROV."""
    record = {"generated_by": "sglat test", "consent": "yes"} | changes
    out = io.BytesIO()
    payload = pack_provenance(Provenance(**record))
    edits.replace_provenance(io.BytesIO(data), out, payload)
    return out.getvalue()


SIGNED = {
    "look": b"an origin", "drive": [b"one", b"two"], "edits": ["before"], "label": "AI",
    "sig": bytes(64), "key": bytes(32), "later": [1, {"a": "b"}],
}  # fmt: skip
LONG = {"drive": [bytes(30_000), b"two", bytes(25_000)], "sig": bytes(64)}
FILES = {
    "constant rate": lambda: sample_file(),
    "variable rate": lambda: sample_file(seed=2, is_variable=True, has_count=False),
    "example": tiny_file,
    "signed": lambda: with_record(sample_file(), extra=SIGNED),
    "long origins": lambda: with_record(sample_file(), extra=LONG),
    "no consent": lambda: with_record(sample_file(seed=4), consent="", note="a; b"),
}


def edited(data: bytes, *texts: str) -> bytes:
    """Return what `sgl-edit` makes of a file."""
    out = io.BytesIO()
    parsed = [parse_edit(*text.partition(" ")[::2]) for text in texts]
    edit_motion(io.BytesIO(data), out, parsed)
    return out.getvalue()


@pytest.mark.parametrize("name", FILES)
def test_replaced_motion_gives_the_bytes_of_sgl_edit(name: str, jobs: Jobs) -> None:
    data = FILES[name]()
    edits_made = ["set yaw+90@0f-20f", "set mouth 3=-5@2f-", "gain eyes=1.5", "set gaze+300"]
    expected = edited(data, *edits_made)
    motion = Reader(io.BytesIO(expected)).read_motion().values
    texts = [parse_edit(*text.partition(" ")[::2]).text for text in edits_made]
    integers = jobs.put(motion.astype("<i4").tobytes())
    jobs.add("replace", file=jobs.put(data), integers=integers, texts=texts, drives=[])
    (found,) = jobs.run()
    assert found == expected
    verify(io.BytesIO(expected))


def test_a_slider_adds_as_sgl_edit_does(jobs: Jobs) -> None:
    data = sample_file()
    cases = {
        (0, 2.5): "set yaw+2.5",
        (20, 0.125): "set chin 2+0.125",
        (4, -0.7): "set mouth 3+-0.7",
    }
    for (channel, value), text in cases.items():
        name = parse_edit(*text.partition(" ")[::2]).text
        jobs.add("add", file=jobs.put(data), channel=channel, value=value, texts=[name])
    assert jobs.run() == [edited(data, text) for text in cases.values()]


@pytest.mark.parametrize("motion", FILES)
def test_a_swap_gives_the_bytes_of_sgl_swap(motion: str, jobs: Jobs) -> None:
    expected = []
    for look in FILES:
        one, other = FILES[motion](), FILES[look]()
        out = io.BytesIO()
        if Reader(io.BytesIO(one)).header.w_dim == Reader(io.BytesIO(other)).header.w_dim:
            edits.swap(io.BytesIO(one), io.BytesIO(other), out)
            expected.append(out.getvalue())
        else:
            expected.append(b"decoder-mismatch")
        jobs.add("swap", motion=jobs.put(one), look=jobs.put(other))
    found = [
        each if isinstance(each, bytes) else each.partition(":")[0].encode() for each in jobs.run()
    ]
    assert found == expected


def test_vectors_swap_as_in_the_product(jobs: Jobs) -> None:
    look = data_of("valid/minimal.sglat")
    expected = []
    for name in READABLE:
        out = io.BytesIO()
        try:
            edits.swap(io.BytesIO(data_of(name)), io.BytesIO(look), out)
        except Exception:
            continue
        expected.append(out.getvalue())
        jobs.add("swap", motion=jobs.put(data_of(name)), look=jobs.put(look))
    assert len(expected) > 15
    assert jobs.run() == expected


def test_an_absolute_swap_shows_the_values_as_they_are(jobs: Jobs) -> None:
    one, other = sample_file(seed=5), sample_file(seed=6)
    jobs.add("swap", motion=jobs.put(one), look=jobs.put(other), transfer="absolute")
    (found,) = jobs.run()
    assert isinstance(found, bytes)
    reader, look = Reader(io.BytesIO(found)), Reader(io.BytesIO(other))
    assert reader.identity is not None and look.identity is not None
    assert np.array_equal(reader.motion_neutral, look.identity.neutral)  # type: ignore[arg-type]
    assert np.array_equal(reader.read_motion().values, Reader(io.BytesIO(one)).read_motion().values)
    verify(io.BytesIO(found))


def test_a_damaged_file_is_saved_as_a_whole_one_of_what_plays(jobs: Jobs) -> None:
    data = sample_file()
    whole = reference.decode(data)
    cut = data[: whole.groups[2].offset + 30]  # a placement waits for its group
    kept = sum(len(group.values) for group in whole.groups[:2])
    integers = np.ascontiguousarray(whole.motion[:kept]).astype("<i4")
    integers[:, 0] += 1
    path = jobs.put(integers.tobytes())
    jobs.add("replace", file=jobs.put(cut), integers=path, texts=["yaw +0.25"], drives=[])
    (found,) = jobs.run()
    assert isinstance(found, bytes)
    again = reference.decode(found)
    assert np.array_equal(again.motion, integers)
    assert [p.packets for p in again.packets] == [p.packets for p in whole.packets]
    assert len(again.placements) == 2


def test_motion_of_another_file_is_named_in_the_record(jobs: Jobs) -> None:
    data, driver = sample_file(), with_record(sample_file(seed=9), note="driver")
    motion = Reader(io.BytesIO(data)).read_motion().values.astype("<i4")
    path = jobs.put(motion.tobytes())
    jobs.add(
        "replace", file=jobs.put(data), integers=path, texts=["é" * 100], drives=[jobs.put(driver)]
    )
    (found,) = jobs.run()
    assert isinstance(found, bytes)
    payload = edits.Source(io.BytesIO(found)).payload("PROV")
    assert payload is not None
    record = unpack_provenance(payload)
    assert record.extra["edits"] == ["é" * 80]
    sources = [edits.Source(io.BytesIO(each)).payload("PROV") for each in (data, driver)]
    assert record.extra["drive"] == sources


def test_values_beyond_the_range_are_refused(jobs: Jobs) -> None:
    jobs.add("add", file=jobs.put(sample_file()), channel=3, value=1e9, texts=[])
    (found,) = jobs.run()
    assert str(found).startswith("bad-value: expected values of at most 1048575 steps")
