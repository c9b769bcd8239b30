"""The maker of vectors keeps released ones as they are."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.format_spec.support import FORMAT_SPEC, VECTORS

if str(FORMAT_SPEC) not in sys.path:
    sys.path.insert(0, str(FORMAT_SPEC))

import make_vectors
import vector_files

NAME = "valid/minimal.sglat"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the vectors, all released."""
    root = tmp_path / "vectors"
    shutil.copytree(VECTORS, root)
    manifest = json.loads((root / "manifest.json").read_text("utf-8"))
    for entry in manifest["vectors"].values():
        entry["released"] = True
    (root / "manifest.json").write_text(make_vectors.manifest_text(manifest["vectors"]), "utf-8")
    return root


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def test_files_and_manifest_are_what_the_maker_makes() -> None:
    assert make_vectors.main(["--check"]) == 0


def test_a_released_vector_with_other_bytes_stops_the_maker(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(vector_files.VALID, "minimal", vector_files.VALID["two-groups"])
    before = contents(folder)
    assert make_vectors.main(["--root", str(folder)]) == 1
    assert contents(folder) == before
    assert capsys.readouterr().err.splitlines() == [
        f"{NAME}: released, but other bytes would be written"
    ]


def test_a_released_vector_with_another_expectation_stops_the_maker(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = vector_files.INVALID["wrong-crc"]

    def changed() -> vector_files.Vector:
        vector = good()
        vector.code = "bad-field"
        return vector

    changed.__name__ = good.__name__
    monkeypatch.setitem(vector_files.INVALID, "wrong-crc", changed)
    assert make_vectors.main(["--root", str(folder)]) == 1


def test_a_released_vector_that_is_no_longer_made_stops_the_maker(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(vector_files.VALID, "minimal")
    assert make_vectors.main(["--root", str(folder)]) == 1
    assert (folder / NAME).is_file()


def test_a_new_vector_is_added_beside_released_ones(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(vector_files.VALID, "new-one", vector_files.VALID["minimal"])
    assert make_vectors.main(["--root", str(folder)]) == 0
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))["vectors"]
    assert manifest["valid/new-one.sglat"]["released"] is False
    assert manifest[NAME]["released"] is True


def test_check_notices_a_changed_file(folder: Path) -> None:
    data = bytearray((folder / NAME).read_bytes())
    data[-1] ^= 1
    (folder / NAME).write_bytes(data)
    assert make_vectors.main(["--root", str(folder), "--check"]) == 1
