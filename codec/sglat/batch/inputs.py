"""What a batch works on: a folder, or a list as text, CSV or Parquet; local paths or addresses.

An address such as `s3://bucket/clip.mp4` is read through fsspec, which nothing else here needs.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from sglat.errors import MissingExtraError, UsageError
from sglat.files import name_beside, open_input, reason_of
from sglat.media.containers import CONTAINERS

EXTRA: Final = "batch"
LIST_SUFFIXES: Final = (".txt", ".lst", ".csv", ".tsv", ".parquet")
VIDEO_SUFFIXES: Final = frozenset(CONTAINERS) | {
    ".3gp", ".m2v", ".mpeg", ".mpg", ".mxf", ".ogv", ".vob", ".webm", ".wmv", ".y4m",
}  # fmt: skip
"""Taken from a folder for encoding; a list may name any file."""
INPUT_COLUMN: Final = "input"
OUTPUT_COLUMN: Final = "output"
_COPY_BYTES: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file to work on."""

    source: str
    """A local path, absolute, or an address."""
    name: str
    """Of the output below the output folder; without a suffix the command's own is added."""


def is_remote(source: str) -> bool:
    """Whether a source is an address for fsspec."""
    return "://" in source


def read_inputs(source: str, suffixes: frozenset[str], *, skipped: Path) -> list[Entry]:
    """Return the files of a folder or a list, in a fixed order.

    Args:
        source: a folder, searched with all folders in it, or a list: text with a path a line, `#`
            before remarks; CSV, TSV or Parquet with a column `input` and perhaps `output`.
        suffixes: of the files that are taken from a folder.
        skipped: the output folder, not searched.

    Raises:
        UsageError: `input-missing`, `input-unreadable`, `list-columns`, `list-damaged`,
            `list-kind`, or `empty-list`.
        MissingExtraError: pyarrow or fsspec.
    """
    if is_remote(source):
        found = _remote(source, suffixes)
    elif Path(source).is_dir():
        found = _of_folder(Path(source), suffixes, skipped)
    else:
        with open_input(source) as file:
            base = str(Path(source).resolve().parent)
            found = _of_list(source, file.read(), base)
    if not found:
        what = f"a file ending in {' '.join(sorted(suffixes))}" if _is_folder(source) else "a path"
        raise UsageError("empty-list", f"expected {what} in {source}, found none")
    return found


def _is_folder(source: str) -> bool:
    return PurePosixPath(source).suffix.lower() not in LIST_SUFFIXES


def _of_folder(folder: Path, suffixes: frozenset[str], skipped: Path) -> list[Entry]:
    root, skipped = folder.resolve(), skipped.resolve()
    paths = [
        path
        for path in sorted(root.rglob("*"))
        if path.suffix.lower() in suffixes
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
        and skipped not in path.parents
        and path.is_file()
    ]
    return [
        Entry(source=str(path), name=str(path.relative_to(root).with_suffix(""))) for path in paths
    ]


def _remote(source: str, suffixes: frozenset[str]) -> list[Entry]:
    system, path = _system(source)
    scheme = source.split("://")[0]
    try:
        if not system.isdir(path):
            return _of_list(source, system.cat_file(path), source.rsplit("/", 1)[0])
        names = sorted(system.find(path))
    except FileNotFoundError as error:
        raise UsageError("input-missing", f"cannot read {source}: there is no such file") from error
    except OSError as error:
        raise UsageError("input-unreadable", f"cannot read {source}: {reason_of(error)}") from error
    return [
        Entry(
            source=f"{scheme}://{name.lstrip('/') if scheme != 'file' else name}",
            name=str(PurePosixPath(name).relative_to(path).with_suffix("")),
        )
        for name in names
        if PurePosixPath(name).suffix.lower() in suffixes
    ]


def _of_list(source: str, data: bytes, base: str) -> list[Entry]:
    """Return the entries of a list; relative paths start at its own folder."""
    suffix = PurePosixPath(source).suffix.lower()
    if suffix not in LIST_SUFFIXES:
        raise UsageError(
            "list-kind",
            f"expected a folder or a list ending in {' '.join(LIST_SUFFIXES)}, got {source}",
        )
    if suffix == ".parquet":
        rows = _parquet_rows(source, data)
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise UsageError(
                "list-damaged", f"expected a list in UTF-8, {source} is not"
            ) from error
        if suffix in (".csv", ".tsv"):
            rows = _table_rows(source, text, "\t" if suffix == ".tsv" else ",")
        else:
            lines = [line.strip() for line in text.splitlines()]
            rows = [(line, "") for line in lines if line and not line.startswith("#")]
    return [_entry(path, output, base) for path, output in rows]


def _table_rows(source: str, text: str, delimiter: str) -> list[tuple[str, str]]:
    try:
        table = csv.DictReader(io.StringIO(text), delimiter=delimiter, strict=True)
        _check_columns(source, table.fieldnames or ())
        rows = [(row[INPUT_COLUMN] or "", row.get(OUTPUT_COLUMN) or "") for row in table]
    except csv.Error as error:
        raise UsageError("list-damaged", f"cannot read {source} as a table: {error}") from error
    return [(path.strip(), output.strip()) for path, output in rows if path.strip()]


def _parquet_rows(source: str, data: bytes) -> list[tuple[str, str]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", extra=EXTRA) from error
    try:
        file = parquet.ParquetFile(io.BytesIO(data))
        _check_columns(source, file.schema_arrow.names)
        wanted = [n for n in (INPUT_COLUMN, OUTPUT_COLUMN) if n in file.schema_arrow.names]
        columns = file.read(columns=wanted).to_pydict()
    except pyarrow.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise UsageError("list-damaged", f"cannot read {source} as Parquet: {reason}") from error
    inputs = columns[INPUT_COLUMN]
    outputs = columns.get(OUTPUT_COLUMN, [None] * len(inputs))
    pairs = zip(inputs, outputs, strict=True)
    return [(str(path), "" if name is None else str(name)) for path, name in pairs if path]


def _check_columns(source: str, names: Sequence[str]) -> None:
    if INPUT_COLUMN not in names:
        raise UsageError(
            "list-columns",
            f"expected a column {INPUT_COLUMN!r} in {source}, found "
            f"{', '.join(map(repr, names)) or 'none'}; name the columns in the first row",
        )


def _entry(path: str, output: str, base: str) -> Entry:
    if is_remote(path):
        source = path
    elif is_remote(base):
        source = f"{base}/{path}"
    else:
        source = str(Path(base, path).resolve())
    return Entry(source=source, name=output or PurePosixPath(Path(source).as_posix()).stem)


def signature(source: str) -> tuple[int, int | None] | None:
    """Return size in bytes and time of change of an input; None where it cannot be read."""
    try:
        if is_remote(source):
            system, path = _system(source)
            return int(system.info(path)["size"]), None
        found = Path(source).stat()
    except (OSError, ValueError, KeyError, TypeError, MissingExtraError, UsageError):
        return None
    return found.st_size, found.st_mtime_ns


@contextmanager
def local_copy(source: str, beside: Path) -> Iterator[Path]:
    """Yield a local path of an input; one behind an address is copied beside an output until the
    end.

    Raises:
        UsageError: there is no such file.
        MissingExtraError: fsspec, or what it needs for this kind of address.
        OSError: the connection failed.
    """
    if not is_remote(source):
        yield Path(source)
        return
    system, path = _system(source)
    kept = name_beside(beside, f".input{PurePosixPath(path).suffix}", is_hidden=True)
    try:
        try:
            with system.open(path, "rb") as stream, kept.open("wb") as file:
                while block := stream.read(_COPY_BYTES):
                    file.write(block)
        except FileNotFoundError as error:
            raise UsageError(
                "input-missing", f"cannot read {source}: there is no such file"
            ) from error
        yield kept
    finally:
        kept.unlink(missing_ok=True)


def _system(source: str) -> tuple[Any, str]:
    """Return the file system of an address, and the path in it."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingExtraError("fsspec", extra=EXTRA) from error
    try:
        system, path = url_to_fs(source)
    except ImportError as error:  # it names the package of this kind of address
        name = source.split("://")[0]
        raise MissingExtraError(
            f"a package for {name}:// addresses", extra=EXTRA, install=f"fsspec[{name}]"
        ) from error
    except ValueError as error:
        raise UsageError("bad-address", f"cannot read {source}: {error}") from error
    return system, str(path)
