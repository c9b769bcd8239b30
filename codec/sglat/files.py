"""Input files that can be read, output files that appear only when complete, and hashes."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self, TypeAlias

from sglat.errors import BundleMismatchError, FormatError, UsageError

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows
    fcntl = None  # type: ignore[assignment]

StrPath: TypeAlias = str | PathLike[str]

HASH_BLOCK_BYTES: Final = 1 << 20
USUAL_NAME_BYTES: Final = 255  # longest file name of most file systems


def open_input(path: StrPath) -> BinaryIO:
    """Open a file for reading in binary mode.

    Raises:
        UsageError: `input-missing`, or `input-unreadable` for a folder, a device or missing
            permission.
    """
    try:
        mode = Path(path).stat().st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise UsageError("input-unreadable", f"cannot read {path}: it is a device")
        return Path(path).open("rb")
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        code = "input-missing" if isinstance(error, FileNotFoundError) else "input-unreadable"
        raise UsageError(code, f"cannot read {path}: {reason_of(error)}") from error


def reason_of(error: OSError | ValueError) -> str:
    """Return why the system refused a file, in a few words."""
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    return _REASONS.get(error.errno) or error.strerror or str(error)


_REASONS: Final[dict[int, str]] = {
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "a part of its path is a file, not a folder",
    errno.EISDIR: "it is a folder",
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.ENAMETOOLONG: "its name is too long for the file system",
    errno.ELOOP: "its symbolic links form a circle",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EIO: "the disk or the network failed",
    errno.ENXIO: "it is a socket or a pipe that nobody writes to",
    errno.EMFILE: "too many files are open",
}


@contextmanager
def naming(file: object) -> Iterator[None]:
    """Add the name of a file to the errors of reading it in a block.

    Args:
        file: a path, or an open file; one without a name adds none.
    """
    try:
        yield
    except (FormatError, BundleMismatchError) as error:
        error.path = error.path or _name_of(file)
        raise
    except OSError as error:
        error.filename = error.filename or _name_of(file)
        raise


def _name_of(file: object) -> str | None:
    name = file if isinstance(file, str | PathLike) else getattr(file, "name", None)
    if not isinstance(name, str | PathLike):
        return None  # an open file without a name has a number
    return "standard input" if name == "<stdin>" else os.fsdecode(name)


SGLAT_SIGNATURE: Final = b"\x89SGL\r\n\x1a\n"  # of `sglat.bitstream.constants`, compared by a test
KIND_BYTES: Final = 16
"""Bytes from the front of a file that `kind_of` looks at."""
_KINDS: Final = (
    (0, SGLAT_SIGNATURE, ".sglat"), (0, b"\x1aE\xdf\xa3", "Matroska or WebM video"),
    (8, b"AVI ", "AVI video"), (8, b"WAVE", "WAV sound"), (8, b"WEBP", "a WebP picture"),
    (0, b"\x89PNG", "a PNG picture"), (0, b"\xff\xd8\xff", "a JPEG picture"),
    (0, b"GIF8", "a GIF picture"), (0, b"OggS", "Ogg sound or video"), (0, b"fLaC", "FLAC sound"),
    (0, b"ID3", "MP3 sound"), (0, b"FLV", "FLV video"), (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"%PDF", "a PDF document"), (0, b"\x89HDF", "an HDF5 file"),
    (0, b"\x1f\x8b", "a gzip file"),
)  # fmt: skip


def kind_of(head: bytes) -> str:
    """Return what a file is by its first `KIND_BYTES` bytes, in words; empty if unknown."""
    if not head:
        return "an empty file"
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide"):
        return "a picture (HEIC or AVIF)" if head[8:12] in _HEIF else "MP4 or MOV video"
    for offset, mark, kind in _KINDS:
        if head[offset : offset + len(mark)] == mark:
            return kind
    try:
        text = head.decode("utf-8", "strict" if len(head) < KIND_BYTES else "ignore")
    except UnicodeDecodeError:
        return ""
    is_text = len(text) > len(head) / 2 and all(c.isprintable() or c in "\t\r\n" for c in text)
    return "text" if is_text else ""


_HEIF: Final = (b"heic", b"heix", b"mif1", b"avif")


def kind_of_file(path: StrPath) -> str:
    """Return what a file is, in words; empty if unknown or unreadable."""
    try:
        with Path(path).open("rb") as file:
            return kind_of(file.read(KIND_BYTES))
    except OSError:
        return ""


def check_input(path: StrPath) -> None:
    """Raise as `open_input` does; for files that a library opens by their name."""
    with suppress(OSError):
        if stat.S_ISFIFO(Path(path).stat().st_mode):
            return  # closing a pipe would stop its writer
    open_input(path).close()


def refuse_existing(
    path: StrPath,
    *,
    force: bool,
    is_folder: bool = False,
    inputs: Iterable[StrPath | None] = (),
) -> None:
    """Check that an output may be written.

    Args:
        path: the output.
        force: an existing output may be replaced.
        is_folder: the output is a folder; no other output replaces a folder.
        inputs: files that are read for it, None among them ignored. None of them is replaced,
            whatever `force` says; links are followed.

    Raises:
        UsageError: `output-exists`, `same-file`, `output-name` for a name that is too long, or
            `output-folder` if the folder around it is missing.
    """
    path = Path(path)
    longest = _longest_name(path.parent)
    if len(os.fsencode(path.name)) > longest:
        raise UsageError(
            "output-name",
            f"expected a file name of at most {longest} bytes, got {len(os.fsencode(path.name))}: "
            f"{path.name[:24]}...",
        )
    for source in inputs:
        if source is not None and _is_replaced(Path(source), path):
            raise UsageError(
                "same-file", f"{path} would replace the input {source}; choose another output"
            )
    if path.is_dir() and not is_folder:
        raise UsageError("output-exists", f"{path} is a folder")
    if path.exists() and not path.is_dir() and not path.is_file():
        raise UsageError("output-exists", f"{path} is a device or a pipe, which is never replaced")
    if path.exists() and not force:
        raise UsageError("output-exists", f"{path} exists; use --force to replace it")
    if not path.parent.is_dir():
        raise UsageError("output-folder", f"expected a folder {path.parent}, found none")


class Closable(ABC):
    """A context manager that is closed at the end, or discarded on an exception."""

    @abstractmethod
    def close(self) -> None:
        """Finish, and release what is held."""

    def discard(self) -> None:
        """Release what is held, and remove unfinished output."""
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


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
    return name_beside(path, f".{os.getpid()}.partial{path.suffix}", is_hidden=True)


def name_beside(path: Path, ending: str, *, is_hidden: bool = False) -> Path:
    """Return a path beside an output whose name is the output's with another ending.

    Where that would be longer than the file system allows, a hash stands for the output's name.

    Args:
        path: the output; its whole name is kept for a visible name, its stem for a hidden one.
        ending: what follows.
        is_hidden: put a dot in front.
    """
    name = f".{path.stem}{ending}" if is_hidden else f"{path.name}{ending}"
    if len(os.fsencode(name)) > _longest_name(path.parent):
        short = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]
        name = f"{'.' if is_hidden else ''}{short}{ending}"
    return path.with_name(name)


def _longest_name(folder: Path) -> int:
    """Return how many bytes a name may have in a folder."""
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # Windows, or no such folder
        return USUAL_NAME_BYTES


def _is_replaced(source: Path, output: Path) -> bool:
    """Whether writing an output, a file or a folder, removes an input."""
    try:
        if output.resolve() == source.resolve():
            return True  # also of two outputs that are not there yet
        if not (output.exists() and source.exists()):
            return False
        if output.is_dir():
            return output.resolve() in source.resolve().parents
        return output.samefile(source)
    except (OSError, RuntimeError):  # a loop of links
        return False


@contextmanager
def output_lock(path: StrPath) -> Iterator[None]:
    """Keep other processes from making the same output at the same time.

    The lock ends with the process, however that ends. Systems without `fcntl` have none.

    Raises:
        UsageError: `output-busy`.
    """
    if fcntl is None:
        yield
        return
    lock = name_beside(Path(path), ".lock", is_hidden=True)
    while True:
        with lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UsageError(
                    "output-busy", f"another process is making {path} at this moment"
                ) from error
            if not _is_named(lock, file.fileno()):
                continue  # the process before removed it between opening and locking
            try:
                yield
            finally:
                lock.unlink(missing_ok=True)
            return


def _is_named(path: Path, handle: int) -> bool:
    with suppress(OSError):
        return path.stat().st_ino == os.fstat(handle).st_ino
    return False


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
    with open_input(path) as file, naming(path):
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
