"""Input files that can be read, output files that appear only when complete, and hashes."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, TypeAlias

from sglat.errors import UsageError

StrPath: TypeAlias = str | PathLike[str]

HASH_BLOCK_BYTES: Final = 1 << 20


def open_input(path: StrPath) -> BinaryIO:
    """Open a file for reading in binary mode.

    Raises:
        UsageError: `input-missing`, or `input-unreadable` for a folder or missing permission.
    """
    try:
        return Path(path).open("rb")
    except OSError as error:
        code = "input-missing" if isinstance(error, FileNotFoundError) else "input-unreadable"
        raise UsageError(code, f"cannot read {path}: {error.strerror}") from error


def check_input(path: StrPath) -> None:
    """Raise as `open_input` does; for files that a library opens by their name."""
    with suppress(OSError):
        if stat.S_ISFIFO(Path(path).stat().st_mode):
            return  # closing a pipe would stop its writer
    open_input(path).close()


def refuse_existing(path: StrPath, *, force: bool, is_folder: bool = False) -> None:
    """Check that an output may be written.

    Args:
        path: the output.
        force: an existing output may be replaced.
        is_folder: the output is a folder; no other output replaces a folder.

    Raises:
        UsageError: `output-exists`, or `output-folder` if the folder around it is missing.
    """
    path = Path(path)
    if path.is_dir() and not is_folder:
        raise UsageError("output-exists", f"{path} is a folder")
    if path.exists() and not force:
        raise UsageError("output-exists", f"{path} exists; use --force to replace it")
    if not path.parent.is_dir():
        raise UsageError("output-folder", f"expected a folder {path.parent}, found none")


class AtomicOutput:
    """An output that grows under a temporary name and gets its own name when it is complete.

    As a context manager it yields the temporary path, commits at the end and discards on an
    exception. The temporary path lies beside the output and has its suffix.

    Args:
        path: the output, a file or a folder.
        force: replace an existing output.
        is_folder: the output is a folder.
        is_synced: flush the file to the disk before it is renamed.

    Raises:
        UsageError: as `refuse_existing`.
    """

    def __init__(
        self,
        path: StrPath,
        *,
        force: bool = False,
        is_folder: bool = False,
        is_synced: bool = False,
    ) -> None:
        refuse_existing(path, force=force, is_folder=is_folder)
        self.path = Path(path)
        self.partial = partial_path(self.path)
        self._is_synced = is_synced
        self.discard()  # of a killed process that had the same number

    def commit(self) -> None:
        """Give the complete output its name."""
        if self._is_synced:
            with self.partial.open("rb") as file:
                os.fsync(file.fileno())
        if self.path.is_dir():
            shutil.rmtree(self.path)
        elif self.partial.is_dir():
            self.path.unlink(missing_ok=True)
        self.partial.replace(self.path)

    def discard(self) -> None:
        """Remove what was written so far."""
        if self.partial.is_dir():
            shutil.rmtree(self.partial, ignore_errors=True)
        else:
            self.partial.unlink(missing_ok=True)

    def __enter__(self) -> Path:
        return self.partial

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self.commit()
        finally:
            self.discard()


def partial_path(path: Path) -> Path:
    """Return this process's temporary name beside an output; matches `PARTIAL_PATTERN`."""
    return path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")


PARTIAL_PATTERN: Final = ".*.partial*"
"""Glob of all temporary names in a folder."""


@contextmanager
def atomic_file(
    path: StrPath, *, force: bool = False, is_synced: bool = False
) -> Iterator[BinaryIO]:
    """Yield a new binary file that gets its name only when all went well.

    Raises:
        UsageError: as `refuse_existing`.
    """
    output = AtomicOutput(path, force=force, is_synced=is_synced)
    with output as partial, partial.open("wb") as file:
        yield file


def write_atomically(path: StrPath, data: bytes | str, *, is_synced: bool = False) -> None:
    """Write a small file, text as UTF-8, in place of an older one."""
    with atomic_file(path, force=True, is_synced=is_synced) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def hash_file(path: StrPath) -> str:
    """Return the sha256 of a file's bytes, hexadecimal, read block by block.

    Raises:
        UsageError: as `open_input`.
    """
    digest = hashlib.sha256()
    with open_input(path) as file:
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
