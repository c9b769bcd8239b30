"""`scene.json`: what is written is read again, and hostile bytes are refused before any work."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sglat.bitstream import scene as scene_module
from sglat.bitstream.scene import (
    CODES,
    MAX_PEOPLE,
    MAX_SCENE_BYTES,
    Scene,
    ScenePerson,
    describe_file,
    open_scene_file,
    pack_scene,
    read_scene,
    unpack_scene,
)
from sglat.bitstream.scene_folder import check_folder
from sglat.errors import FormatError, UsageError
from tests.format_spec.support import FORMAT_SPEC

PERSON = ScenePerson(
    file="person-1.sglat", bytes=12, sha256="ab" * 32, face=1, order=1, first_frame=0,
    last_frame=9, shown_frames=10, centre=(40.5, 30.0), size=25.0,
)  # fmt: skip
SCENE = Scene(source_sha256="cd" * 32, width=160, height=96, frames=10, people=(PERSON,))


def changed(**values: Any) -> bytes:
    return json.dumps(json.loads(pack_scene(SCENE)) | values).encode()


def with_person(**values: Any) -> bytes:
    record = json.loads(pack_scene(SCENE))
    record["people"][0] |= values
    return json.dumps(record).encode()


def code_of(data: bytes) -> str:
    with pytest.raises(FormatError) as caught:
        unpack_scene(data)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 240
    return caught.value.code


def test_a_scene_is_read_as_written() -> None:
    second = replace(PERSON, file="person-2.sglat", face=2, order=2)
    plate = scene_module.SceneFile(file="plate.webp", bytes=3, sha256="00" * 32)
    scene = replace(SCENE, people=(PERSON, second), plate=plate)
    assert unpack_scene(pack_scene(scene)) == scene


@pytest.mark.parametrize(
    "name",
    [
        "../a.sglat", "/etc/a.sglat", "a/b.sglat", "a\\b.sglat", "..sglat", ".sglat", "a.sglat\n",
        "a\0.sglat", "C:a.sglat", "ä.sglat", "a.mp4", "plate.webp", "a" * 90 + ".sglat", "",
        "person-1.sglat ",
    ],
)  # fmt: skip
def test_a_name_that_leaves_the_folder_is_refused(name: str) -> None:
    assert code_of(with_person(file=name)) == "scene-path"


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"[1]", b"null", b"\xff\xfe", b'{"format": "other"}', b"[" * 60_000,
        b'{"format": "sglat-scene", "format": "sglat-scene"}', b"1" * 60_000,
        b" " * (MAX_SCENE_BYTES + 1), b'{"format": NaN}',
    ],
)  # fmt: skip
def test_what_is_no_scene_is_refused(data: bytes) -> None:
    assert code_of(data) == "scene-syntax"


@pytest.mark.parametrize("version", [0, 2, "1", None, True, 1.0, 10**400])
def test_another_version_is_refused(version: object) -> None:
    assert code_of(changed(version=version)) == "scene-version"


@pytest.mark.parametrize(
    "data",
    [
        changed(people=[]), changed(people={}), changed(people=[7]), changed(people=None),
        changed(people=[json.loads(pack_scene(SCENE))["people"][0]] * 2),
        changed(people=[json.loads(pack_scene(SCENE))["people"][0]] * (MAX_PEOPLE + 1)),
        changed(frames=0), changed(frames=1 << 25), changed(width=0), changed(height=True),
        changed(source_sha256="xyz"), changed(plate=5), with_person(bytes=0),
        with_person(bytes=10**30), with_person(sha256="AB" * 32), with_person(sha256=None),
        with_person(order=2), with_person(order=-1), with_person(first_frame=10),
        with_person(last_frame=10), with_person(shown_frames=0), with_person(centre=[1]),
        with_person(centre=[1, "2"]), with_person(size=1e30), with_person(face="1"),
    ],
)  # fmt: skip
def test_a_value_outside_of_its_limits_is_refused(data: bytes) -> None:
    assert code_of(data) == "scene-value"


def test_an_unknown_name_is_passed_over() -> None:
    assert unpack_scene(changed(camera="left")) == SCENE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "person-1.sglat").write_bytes(b"twelve bytes")
    entry = describe_file(tmp_path / "person-1.sglat")
    person = replace(PERSON, bytes=entry.bytes, sha256=entry.sha256)
    (tmp_path / "scene.json").write_bytes(pack_scene(replace(SCENE, people=(person,))))
    return tmp_path


def opening(folder: Path) -> str:
    """Return the code with which opening the person's file fails; empty if it does not."""
    scene, home = read_scene(folder)
    with ExitStack() as stack:
        try:
            file = open_scene_file(home, scene.people[0], stack)
        except FormatError as error:
            assert "person-1.sglat" in str(error)
            return error.code
        return file.read().decode().replace("twelve bytes", "")


def test_a_file_with_the_named_bytes_is_opened_at_its_start(folder: Path) -> None:
    assert opening(folder) == ""


def test_a_missing_file_is_refused(folder: Path) -> None:
    (folder / "person-1.sglat").unlink()
    assert opening(folder) == "scene-missing"


@pytest.mark.parametrize("data", [b"", b"twelve bytez", b"twelve bytes and more"])
def test_a_changed_file_is_refused(folder: Path, data: bytes) -> None:
    (folder / "person-1.sglat").write_bytes(data)
    assert opening(folder) == "scene-changed"


def test_a_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"twelve bytes")
    (folder / "person-1.sglat").unlink()
    (folder / "person-1.sglat").symlink_to(outside)
    assert opening(folder) == "scene-path"


def test_a_folder_in_place_of_a_file_is_refused(folder: Path) -> None:
    (folder / "person-1.sglat").unlink()
    (folder / "person-1.sglat").mkdir()
    assert opening(folder) == "scene-path"


def test_a_scene_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no-scene"):
        read_scene(tmp_path / "no-scene.json")


def test_only_a_scene_is_replaced_and_only_by_force(folder: Path) -> None:
    check_folder(folder, force=True)
    with pytest.raises(UsageError, match="--force"):
        check_folder(folder, force=False)
    (folder / "holiday.jpg").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"holiday\.jpg"):
        check_folder(folder, force=True)


def test_a_folder_of_files_without_a_scene_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "other.sglat").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"other\.sglat"):
        check_folder(tmp_path, force=True)


def test_codes_and_limits_are_those_of_the_specification() -> None:
    text = (FORMAT_SPEC / "SCENE.md").read_text(encoding="utf-8")
    assert tuple(re.findall(r"^\| `(scene-[a-z]+)` \|", text, re.MULTILINE)) == CODES
    limits = dict(re.findall(r"^\| `([A-Z_]+)` \| ([\d^]+) \|", text, re.MULTILINE))
    for name in ("VERSION", "MAX_SCENE_BYTES", "MAX_PEOPLE", "MAX_FILE_BYTES", "MAX_FRAMES"):
        base, _, power = limits[name].partition("^")
        assert int(base) ** int(power or 1) == getattr(scene_module, name)
