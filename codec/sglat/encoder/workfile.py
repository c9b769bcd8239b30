"""The work file: results of the stages of an encoding, safe against being killed at any moment.

A folder of small HDF5 files. An HDF5 file that is open for writing when its process dies may never
open again, so no file is changed in place: each part is written under a temporary name, flushed to
the disk and renamed. A part that has its final name is complete.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sglat.errors import MissingExtraError, UsageError, WorkFileError
from sglat.files import PARTIAL_PATTERN, AtomicOutput, name_beside, write_atomically

try:
    import h5py
except ImportError as error:  # pragma: no cover - the decoder's installation has no h5py
    raise MissingExtraError("h5py", extra="encode") from error

LAYOUT: Final = 1  # of the folder; another number is refused
SOURCE_NAME: Final = "source.json"
DONE_NAME: Final = "done.h5"
CHECKPOINT_NAME: Final = "checkpoint.h5"
OPEN_PARTS: Final = 8  # parts kept open for reading; bounds file handles
CHUNK: Final = 64  # frames a part, where they are stored as they come

Array = NDArray[Any]


def config_hash(*configs: Any) -> str:
    """Return a short hash of config dataclasses and of other plain JSON values.

    Raises:
        TypeError: a value is not plain, so that its text might differ from run to run.
    """
    plain = [asdict(c) if is_dataclass(c) and not isinstance(c, type) else c for c in configs]
    text = json.dumps(plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class WorkFile:
    """Finished work of one encoding, in a folder that is made when missing; `source` is the sha256
    of the input video, hexadecimal.

    Raises:
        WorkFileError: the folder belongs to another input, or is no work file.
    """

    def __init__(self, folder: Path, *, source: str) -> None:
        self.folder = folder
        self.source = source
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise WorkFileError(
                "not-a-work-file", f"expected a folder for unfinished work, {folder} is a file"
            ) from error
        self._check_source()

    def open(self, name: str, key: str) -> Store:
        """Open the store of a name in lower case; what it holds under another key, the hash of
        everything that the stored results depend on, is deleted."""
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise WorkFileError("bad-stage", f"expected a plain store name, got {name!r}")
        return Store(self.folder / name, key=key)

    def remove(self) -> None:
        """Delete the folder and everything in it."""
        remove_folder(self.folder)

    def _check_source(self) -> None:
        path = self.folder / SOURCE_NAME
        record = {"layout": LAYOUT, "source": self.source}
        if not path.exists():
            _check_empty(self.folder)
            write_atomically(path, json.dumps(record), is_synced=True)
            return
        try:
            found = json.loads(path.read_text())
        except ValueError as error:
            raise WorkFileError("work-damaged", f"{path} is not JSON; delete the folder") from error
        if found != record:
            raise WorkFileError(
                "work-other-input",
                f"{self.folder} belongs to input {str(found.get('source'))[:12]}…, this is "
                f"{self.source[:12]}…; delete it or name another with --workfile",
            )


class Store:
    """Results of one name: rows appended in chunks, small results at the end, one checkpoint."""

    def __init__(self, folder: Path, *, key: str) -> None:
        self.folder = folder
        self._open: dict[Path, Any] = {}
        path = folder / "key"
        if not path.exists() or path.read_text() != key:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            write_atomically(path, key, is_synced=True)
        self._parts = self._find_parts()

    @property
    def rows(self) -> int:
        """Rows appended and safe on disk."""
        return self._parts[-1][1] if self._parts else 0

    @property
    def is_done(self) -> bool:
        """Whether `finish` was called."""
        return (self.folder / DONE_NAME).exists()

    def append(self, arrays: Mapping[str, Array]) -> None:
        """Add rows: arrays with the same names each time and one common first axis."""
        counts = {len(array) for array in arrays.values()}
        if len(counts) != 1 or counts == {0}:
            raise ValueError(f"expected arrays of one length above zero, got {sorted(counts)}")
        start, stop = self.rows, self.rows + counts.pop()
        path = self.folder / f"rows-{start:08d}-{stop:08d}.h5"
        _write_part(path, arrays, {})
        self._parts.append((start, stop, path))

    def extend(self, frames: Iterable[Sequence[Mapping[str, Any]]]) -> None:
        """Append the rows of frames as they come, `CHUNK` frames at a time; each row has arrays by
        name."""
        waiting: list[Mapping[str, Any]] = []
        for count, rows in enumerate(frames, 1):
            waiting += rows
            if count % CHUNK == 0:
                self.append(stacked(waiting))
                waiting = []
        if waiting:
            self.append(stacked(waiting))

    def read(self, name: str, start: int = 0, stop: int | None = None) -> Array:
        """Return rows `start` to `stop` of an appended array."""
        stop = self.rows if stop is None else min(stop, self.rows)
        pieces = [
            self._part(path)[name][max(start - first, 0) : stop - first]
            for first, last, path in self._parts
            if first < stop and last > start
        ]
        if not pieces:
            raise WorkFileError("work-missing", f"no rows {start}..{stop} in {self.folder.name}")
        return np.concatenate(pieces) if len(pieces) > 1 else np.asarray(pieces[0])

    def read_rows(self, name: str, rows: Sequence[int] | NDArray[np.integer[Any]]) -> Array:
        """Return single rows in the order asked for; neighbours are read together."""
        wanted = np.asarray(rows, dtype=np.int64)
        order = np.argsort(wanted, kind="stable")
        result: Array | None = None
        for first, last, path in self._parts:
            inside = order[(wanted[order] >= first) & (wanted[order] < last)]
            if not len(inside):
                continue
            low, high = wanted[inside[0]], wanted[inside[-1]] + 1
            piece = self._part(path)[name][low - first : high - first]
            if result is None:
                result = np.empty((len(wanted), *piece.shape[1:]), dtype=piece.dtype)
            result[inside] = piece[wanted[inside] - low]
        if result is None or (wanted >= self.rows).any() or (wanted < 0).any():
            raise WorkFileError("work-missing", f"rows outside 0..{self.rows} asked for")
        return result

    def finish(
        self, arrays: Mapping[str, Array] | None = None, facts: Mapping[str, Any] | None = None
    ) -> None:
        """Mark the work as done, with small results; `facts` must be JSON."""
        _write_part(self.folder / DONE_NAME, arrays or {}, facts or {})
        (self.folder / CHECKPOINT_NAME).unlink(missing_ok=True)

    def result(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Return what `finish` was given."""
        return _read_part(self.folder / DONE_NAME)

    def save_checkpoint(
        self, arrays: Mapping[str, Array], facts: Mapping[str, Any] | None = None
    ) -> None:
        """Replace the state from which unfinished work continues."""
        _write_part(self.folder / CHECKPOINT_NAME, arrays, facts or {})

    def load_checkpoint(self) -> tuple[dict[str, Array], dict[str, Any]] | None:
        """Return the latest checkpoint, or None."""
        path = self.folder / CHECKPOINT_NAME
        return _read_part(path) if path.exists() else None

    def _find_parts(self) -> list[tuple[int, int, Path]]:
        for leftover in self.folder.glob(PARTIAL_PATTERN):
            leftover.unlink()
        parts: list[tuple[int, int, Path]] = []
        for path in sorted(self.folder.glob("rows-*.h5")):
            start, stop = (int(number) for number in path.stem.split("-")[1:])
            if start != (parts[-1][1] if parts else 0):
                raise WorkFileError(
                    "work-damaged", f"rows are missing before {path.name}; delete {self.folder}"
                )
            parts.append((start, stop, path))
        return parts

    def _part(self, path: Path) -> Any:
        if path not in self._open:
            while len(self._open) >= OPEN_PARTS:
                self._open.pop(next(iter(self._open))).close()
            self._open[path] = _open_part(path)
        return self._open[path]


def stacked(rows: Sequence[Mapping[str, Any]]) -> dict[str, Array]:
    """Return rows of arrays by name as arrays with the rows as first axis."""
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def default_workfile(target: Path) -> Path:
    """Return the folder beside an output that holds unfinished work."""
    return name_beside(target, ".work")


def check_apart(folder: Path, paths: Iterable[Path | None]) -> None:
    """Raise UsageError if a file lies in the work file, which is deleted at the end."""
    for path in paths:
        if path is not None and folder.resolve() in path.resolve().parents:
            raise UsageError(
                "bad-workfile",
                f"{folder} is deleted at the end, and {path} lies in it; choose another --workfile",
            )


def remove_work(folder: Path) -> None:
    """Delete unfinished work, but only what is a work file.

    Raises:
        WorkFileError: the folder is something else.
    """
    if folder.is_dir() and not (folder / SOURCE_NAME).exists():
        _check_empty(folder)
    remove_folder(folder)


def _check_empty(folder: Path) -> None:
    """Raise WorkFileError unless a folder holds nothing but the temporary files of a killed
    process."""
    if not all(child.match(PARTIAL_PATTERN) for child in folder.iterdir()):
        raise WorkFileError("not-a-work-file", f"{folder} exists and is not a work file")


def remove_folder(folder: Path) -> None:
    """Delete a work file, the mark that makes it one last."""
    for child in folder.glob("*"):
        if child.is_dir():
            shutil.rmtree(child, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def _write_part(path: Path, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
    with (
        AtomicOutput(path, force=True, is_synced=True) as partial,
        h5py.File(partial, "w") as file,
    ):
        for name, array in arrays.items():
            file.create_dataset(name, data=np.asarray(array))
        file.attrs["facts"] = json.dumps(dict(facts))


def _read_part(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    with _open_part(path) as file:
        arrays: dict[str, Array] = {}
        file.visititems(
            lambda name, item: (
                arrays.__setitem__(name, item[()]) if isinstance(item, h5py.Dataset) else None
            )
        )
        return arrays, json.loads(file.attrs["facts"])


def _open_part(path: Path) -> Any:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise WorkFileError("work-damaged", f"{path} does not open; delete the folder") from error
