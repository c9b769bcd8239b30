"""`scene.json`: the people of one video, a `.sglat` file each (format_spec/SCENE.md)."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn, TypeVar

from sglat.errors import FormatError
from sglat.files import HASH_BLOCK_BYTES, open_input, reason_of

SCENE_NAME: Final = "scene.json"
FORMAT: Final = "sglat-scene"
VERSION: Final = 1
MAX_SCENE_BYTES: Final = 1 << 16  # 32 people need 12 KiB; read before anything is parsed
MAX_PEOPLE: Final = 32
MAX_FILE_BYTES: Final = 1 << 40
MAX_FRAMES: Final = 1 << 24  # as in SPEC.md
MAX_PIXELS: Final = 1 << 16
FILE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\.(sglat|webp)", re.ASCII)
SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
CODES: Final = ("scene-syntax", "scene-version", "scene-value", "scene-path", "scene-missing",
                "scene-changed", "scene-mismatch")  # fmt: skip

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class SceneFile:
    """A file of the scene's folder."""

    file: str
    """Name in the folder."""
    bytes: int
    sha256: str
    """Of the whole file, hexadecimal."""


@dataclass(frozen=True, kw_only=True)
class ScenePerson(SceneFile):
    """One person and where they are."""

    face: int
    """Number of the face in the source, from 1."""
    order: int
    """By mean size, 1 the largest; smaller ones lie behind."""
    first_frame: int
    last_frame: int
    """Of the frames with this face."""
    shown_frames: int
    """Number of frames with this face."""
    centre: tuple[float, float]
    """Mean of x and y of the crop in pixels of the source; the file has them frame by frame."""
    size: float
    """Mean side of the crop in pixels of the source."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The people of one video."""

    source_sha256: str
    """Of the video, hexadecimal."""
    width: int
    """Of the video in pixels."""
    height: int
    frames: int
    people: tuple[ScenePerson, ...]
    """By number of the face."""
    plate: SceneFile | None = None
    """The empty background as WebP picture."""


def pack_scene(scene: Scene) -> bytes:
    """Return the bytes of `scene.json`."""
    record = {"format": FORMAT, "version": VERSION, **asdict(scene)}
    return (json.dumps(record, indent=1) + "\n").encode()


def unpack_scene(data: bytes) -> Scene:
    """Return the scene of the bytes of `scene.json`.

    Raises:
        FormatError: not JSON, another version, a value outside of its limits, a name that is none
            of a file in the folder.
    """
    if len(data) > MAX_SCENE_BYTES:
        raise FormatError("scene-syntax", f"expected at most {MAX_SCENE_BYTES} bytes")
    record = _parse(data)
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise FormatError("scene-syntax", f"expected a JSON object of the format {FORMAT}")
    if type(record.get("version")) is not int or record["version"] != VERSION:
        found = str(record.get("version"))[:20]
        raise FormatError("scene-version", f"expected version {VERSION}, found {found}")
    people: list[Any] = _get(record, "people", list)
    if not 1 <= len(people) <= MAX_PEOPLE:
        raise FormatError("scene-value", f"people: expected 1 to {MAX_PEOPLE}, found {len(people)}")
    frames = _number(record, "frames", 1, MAX_FRAMES)
    plate = None if record.get("plate") is None else _file_of(_get(record, "plate", dict), "webp")
    scene = Scene(
        source_sha256=_text(record, "source_sha256", SHA256, "scene-value"),
        width=_number(record, "width", 1, MAX_PIXELS),
        height=_number(record, "height", 1, MAX_PIXELS),
        frames=frames,
        people=tuple(_person(entry, frames, len(people)) for entry in people),
        plate=plate,
    )
    for what in ("file", "order", "face"):
        values = [getattr(person, what) for person in scene.people]
        if len(set(values)) != len(values):
            raise FormatError("scene-value", f"{what}: expected each once, found some twice")
    return scene


def read_scene(path: Path) -> tuple[Scene, Path]:
    """Return a scene and its folder, by the folder or its `scene.json`.

    Raises:
        FormatError: as `unpack_scene`. UsageError: no such file.
    """
    path = path / SCENE_NAME if path.is_dir() else path
    try:
        with open_input(path) as file:
            return unpack_scene(file.read(MAX_SCENE_BYTES + 1)), path.parent
    except FormatError as error:
        error.path = str(path)
        raise


def is_scene(path: Path) -> bool:
    """Whether a path names a scene: a `.json` file, or a folder with `scene.json` in it."""
    return path.suffix.lower() == ".json" or (path / SCENE_NAME).is_file()


def open_scene_file(folder: Path, entry: SceneFile, stack: ExitStack) -> BinaryIO:
    """Open a file of the scene's folder whose bytes are those that the scene was made with.

    Raises:
        FormatError: the file is missing, is a link or no file, or has other bytes.
    """
    path = folder / entry.file
    try:
        mode = os.lstat(path).st_mode
        if not stat.S_ISREG(mode):
            raise FormatError("scene-path", f"expected a file {entry.file} in {folder}, not a link")
        file = stack.enter_context(path.open("rb"))
    except OSError as error:
        raise FormatError(
            "scene-missing", f"expected {entry.file} in {folder}: {reason_of(error)}"
        ) from error
    size = os.fstat(file.fileno()).st_size
    if size != entry.bytes:
        raise _changed(folder, entry, f"expected {entry.bytes} bytes, found {size}")
    digest = hashlib.sha256()
    while block := file.read(HASH_BLOCK_BYTES):
        digest.update(block)
    if digest.hexdigest() != entry.sha256:
        found = f"expected the hash {entry.sha256[:16]}, found {digest.hexdigest()[:16]}"
        raise _changed(folder, entry, found)
    file.seek(0)
    return file


def describe_file(path: Path) -> SceneFile:
    """Return name, size and hash of a file."""
    digest, size = hashlib.sha256(), 0
    with open_input(path) as file:
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
    return SceneFile(file=path.name, bytes=size, sha256=digest.hexdigest())


def _changed(folder: Path, entry: SceneFile, found: str) -> FormatError:
    return FormatError(
        "scene-changed", f"{folder / entry.file} is not the file that the scene names: {found}"
    )


def _parse(data: bytes) -> Any:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) != len(pairs):
            raise ValueError("a name twice in an object")
        return dict(pairs)

    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    try:
        return json.loads(data.decode(), object_pairs_hook=once, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:80]
        raise FormatError("scene-syntax", f"expected JSON: {reason}") from error


def _person(entry: Any, frames: int, count: int) -> ScenePerson:
    if not isinstance(entry, dict):
        raise FormatError("scene-value", "people: expected objects")
    centre: list[Any] = _get(entry, "centre", list)
    if len(centre) != 2:
        raise FormatError("scene-value", "centre: expected two numbers")
    first = _number(entry, "first_frame", 0, frames - 1)
    place = {"x": centre[0], "y": centre[1]}
    return ScenePerson(
        **asdict(_file_of(entry, "sglat")),
        face=_number(entry, "face", 1, MAX_FRAMES),
        order=_number(entry, "order", 1, count),
        first_frame=first,
        last_frame=_number(entry, "last_frame", first, frames - 1),
        shown_frames=_number(entry, "shown_frames", 1, frames),
        centre=(_real(place, "x"), _real(place, "y")),
        size=_real(entry, "size"),
    )


def _file_of(entry: dict[str, Any], suffix: str) -> SceneFile:
    name = _text(entry, "file", FILE_NAME, "scene-path")
    if not name.endswith(f".{suffix}"):
        raise FormatError("scene-path", f"expected the name of a .{suffix} file, found {name}")
    return SceneFile(
        file=name,
        bytes=_number(entry, "bytes", 1, MAX_FILE_BYTES),
        sha256=_text(entry, "sha256", SHA256, "scene-value"),
    )


def _get(record: dict[str, Any], name: str, kind: type[T]) -> T:
    value = record.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        found = "nothing" if value is None else type(value).__name__
        raise FormatError("scene-value", f"{name}: expected {kind.__name__}, found {found}")
    return value


def _number(record: dict[str, Any], name: str, low: int, high: int) -> int:
    value = _get(record, name, int)
    if not low <= value <= high:
        found = value if abs(value) < 1 << 63 else "a larger number"
        raise FormatError("scene-value", f"{name}: expected {low} to {high}, found {found}")
    return value


def _real(record: dict[str, Any], name: str) -> float:
    value = record.get(name)
    if type(value) not in (int, float) or not abs(value) < 1 << 20:  # type: ignore[arg-type]
        raise FormatError("scene-value", f"{name}: expected a number below 2^20")
    return float(value)  # type: ignore[arg-type]


def _text(record: dict[str, Any], name: str, pattern: re.Pattern[str], code: str) -> str:
    value = _get(record, name, str)
    if not pattern.fullmatch(value):
        what = "a plain file name of the folder" if code == "scene-path" else "a SHA-256"
        raise FormatError(code, f"{name}: expected {what}, found {value[:40]!r}")
    return value
