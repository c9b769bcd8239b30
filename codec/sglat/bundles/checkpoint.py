"""Published weight files (`.pt`, `.pth`, `.pkl`, `.safetensors`) as named tensors only."""

from __future__ import annotations

import io
import mmap
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file
from torch import Tensor

from sglat.bundles.inert_pickle import InertObject, read_pickle
from sglat.bundles.weight_names import Storage, StoredTensor, WeightNames, loaded_tensor
from sglat.errors import BundleError

_LEGACY_MAGIC: Final = 0x1950A86A20F9469CFC6C  # first pickle of a torch file before version 1.6
_LEGACY_PROTOCOL: Final = 1001
MAX_PICKLE_BYTES: Final = 64 << 20  # the pickle inside a zip holds names and shapes only
MAX_ENTRIES: Final = 1 << 18
MAX_DEPTH: Final = 32
MAX_NAME: Final = 512
_SLACK_BYTES: Final = 64 << 20


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a weight file without running anything in it.

    Names of containers are joined with dots, `g_ema.conv1.conv.weight`. Understood are torch files
    (zip and legacy), pickled modules (their parameters and buffers) and safetensors. Tensors come
    back contiguous, on the CPU, in the file's own precision.

    Raises:
        BundleError: not such a file, truncated, damaged, or a name outside the allow-list; the
            message begins with the path.
    """
    try:
        with _mapped(path) as data:
            return _read(path, data)
    except BundleError as error:
        raise BundleError(error.code, f"{path}: {error.message}") from error
    except OSError as error:
        raise BundleError("unreadable", f"{path}: {os.strerror(error.errno or 0)}") from error


def _read(path: Path, data: mmap.mmap) -> dict[str, Tensor]:
    budget = 2 * len(data) + _SLACK_BYTES
    start = data[:8]
    if start[:4] == b"PK\x03\x04":
        return _flatten(_read_zip(path, data), budget)
    if start[:1] == b"\x80":
        return _flatten(_read_plain(data), budget)
    if len(data) > 9 and data[8:9] == b"{":
        return _read_safetensors(path)
    if start.lstrip()[:1] == b"<":
        raise BundleError("not-a-checkpoint", "a web page, not the weight file it offers")
    raise BundleError(
        "not-a-checkpoint", f"expected a torch file, a pickle or safetensors, found {start!r}"
    )


@contextmanager
def _mapped(path: Path) -> Iterator[mmap.mmap]:
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise BundleError("not-a-checkpoint", "the file is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:  # the library raises a class of its own
        reason = " ".join(str(error).split())
        raise BundleError("not-a-checkpoint", f"not safetensors: {reason}") from error


def _read_zip(path: Path, data: mmap.mmap) -> Any:
    """Read a torch file of version 1.6 or later: `name/data.pkl` and `name/data/0`, `1`, …"""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {info.filename: info for info in archive.infolist()}
    except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError) as error:
        raise BundleError("truncated", f"the archive has no directory: {error}") from error
    roots = [name[: -len("data.pkl")] for name in entries if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise BundleError("not-a-checkpoint", "a zip archive, but not one written by torch.save")
    root = roots[0]
    if f"{root}constants.pkl" in entries:  # such archives may hold compressed notes
        raise BundleError("not-a-checkpoint", "a TorchScript program, not plain weights")
    if sum(info.file_size for info in entries.values()) > len(data):
        raise BundleError("bad-checkpoint", "entries that overlap or are compressed")
    if f"{root}byteorder" in entries:
        order = _entry_bytes(data, entries[f"{root}byteorder"], 16)
        if order != b"little":
            raise BundleError("unsupported-checkpoint", f"byte order {order!r}")

    def storage(dtype: torch.dtype, key: str, count: int) -> Storage:
        info = entries.get(f"{root}data/{key}")
        if info is None:
            raise BundleError("bad-checkpoint", f"expected an entry data/{key[:40]}, found none")
        if info.file_size != count * dtype.itemsize:
            raise BundleError(
                "bad-checkpoint",
                f"data/{key}: expected {count * dtype.itemsize} bytes, found {info.file_size}",
            )
        return Storage(dtype, count, _entry_reader(data, info))

    pickle = _entry_bytes(data, entries[f"{root}data.pkl"], MAX_PICKLE_BYTES)
    return read_pickle(io.BytesIO(pickle), WeightNames(_shared(storage)))


def _read_plain(data: mmap.mmap) -> Any:
    """Read a legacy torch file, or a pickled module with torch files inside it."""
    names = WeightNames(_no_storage, nested=_read_nested)
    first = read_pickle(data, names)
    if first == _LEGACY_MAGIC:
        return _read_legacy(data)
    return first


def _read_nested(raw: bytes) -> Any:
    stream = io.BytesIO(raw)
    if read_pickle(stream, WeightNames(_no_storage)) != _LEGACY_MAGIC:
        raise BundleError("bad-checkpoint", "expected a torch file inside the pickle")
    return _read_legacy(stream)


def _read_legacy(stream: mmap.mmap | io.BytesIO) -> Any:
    """Read what follows the magic number: version, system, object, storage keys, storages."""
    plain = WeightNames(_no_storage)
    version = read_pickle(stream, plain)
    if version != _LEGACY_PROTOCOL:
        raise BundleError("unsupported-checkpoint", f"torch file protocol {version!r:.40}")
    system = read_pickle(stream, plain)
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise BundleError("unsupported-checkpoint", "a big-endian torch file")
    storages: dict[str, Storage] = {}

    def storage(dtype: torch.dtype, key: str, count: int) -> Storage:
        storages[key] = Storage(dtype, count)
        return storages[key]

    found = read_pickle(stream, WeightNames(_shared(storage)))
    keys = read_pickle(stream, plain)
    if not isinstance(keys, list):
        raise BundleError("bad-checkpoint", "expected the list of storages")
    for key in keys:
        target = storages.get(key) if isinstance(key, str) else None
        if target is None:
            raise BundleError("bad-checkpoint", "a storage that nothing refers to")
        _place_legacy(stream, target)
    return found


def _place_legacy(stream: mmap.mmap | io.BytesIO, target: Storage) -> None:
    """Record the position of a legacy storage and skip it."""
    head = stream.read(8)
    size = target.count * target.dtype.itemsize
    if len(head) != 8 or struct.unpack("<q", head)[0] != target.count:
        raise BundleError("truncated", f"expected a storage of {target.count} numbers")
    start = stream.tell()
    view = stream.getbuffer() if isinstance(stream, io.BytesIO) else stream
    if start + size > len(view):
        raise BundleError(
            "truncated", f"expected {size} bytes from {start} on, found {len(view) - start}"
        )
    stream.seek(start + size)

    def read(offset: int, length: int) -> bytearray:
        return bytearray(view[start + offset : start + offset + length])

    target.read = read


def _shared(
    storage: Callable[[torch.dtype, str, int], Storage],
) -> Callable[[torch.dtype, str, int], Storage]:
    """Return the same storage whenever a key comes again."""
    known: dict[str, Storage] = {}

    def lookup(dtype: torch.dtype, key: str, count: int) -> Storage:
        if key not in known:
            known[key] = storage(dtype, key, count)
        if known[key].dtype != dtype or known[key].count != count:
            raise BundleError("bad-checkpoint", f"storage {key[:40]} comes with two sizes")
        return known[key]

    return lookup


def _no_storage(dtype: torch.dtype, key: str, count: int) -> Storage:
    raise BundleError("bad-checkpoint", "a reference to a storage outside a torch file")


def _entry_start(data: mmap.mmap, info: zipfile.ZipInfo) -> int:
    """Return where an entry's bytes begin, after checking that they are stored plainly."""
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise BundleError("unsupported-checkpoint", f"{info.filename[:80]} is compressed")
    header = data[info.header_offset : info.header_offset + 30]
    if len(header) != 30 or header[:4] != b"PK\x03\x04":
        raise BundleError("damaged-checkpoint", f"{info.filename[:80]}: no local header")
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    start: int = info.header_offset + 30 + name_length + extra_length
    if start + info.file_size > len(data):
        raise BundleError("truncated", f"{info.filename[:80]} ends outside the file")
    return start


def _entry_bytes(data: mmap.mmap, info: zipfile.ZipInfo, limit: int) -> bytes:
    if info.file_size > limit:
        raise BundleError("bad-checkpoint", f"{info.filename[:80]}: more than {limit} bytes")
    return bytes(_entry_reader(data, info)(0, info.file_size))


def _entry_reader(data: mmap.mmap, info: zipfile.ZipInfo) -> Callable[[int, int], bytearray]:
    """Return a reader of one storage that checks the entry's CRC before its first use."""
    start = _entry_start(data, info)
    is_checked = False

    def read(offset: int, length: int) -> bytearray:
        nonlocal is_checked
        if not is_checked:
            with memoryview(data) as view, view[start : start + info.file_size] as body:
                if zlib.crc32(body) != info.CRC:
                    raise BundleError(
                        "damaged-checkpoint", f"{info.filename[:80]}: the checksum is wrong"
                    )
            is_checked = True
        return bytearray(data[start + offset : start + offset + length])

    return read


def _flatten(root: Any, budget: int) -> dict[str, Tensor]:
    """Walk the containers, join their names with dots and read the tensors."""
    stored: dict[str, StoredTensor] = {}
    pending: list[tuple[str, Any, int]] = [("", root, 0)]
    entries = 0
    while pending:
        prefix, value, depth = pending.pop()
        tensor = loaded_tensor(value)
        if tensor is not None:
            stored[prefix] = tensor
        else:
            members = _members(value)
            entries += len(members)  # shared and cyclic containers count each time they are met
            if entries > MAX_ENTRIES or depth > MAX_DEPTH:
                raise BundleError("bad-checkpoint", "too many entries or containers too deep")
            pending.extend((_join(prefix, name), item, depth + 1) for name, item in members)
    needed = sum(tensor.size_bytes for tensor in stored.values())
    if needed > budget:
        raise BundleError("bad-checkpoint", f"{needed} bytes of tensors, more than {budget}")
    if not stored:
        raise BundleError("not-a-checkpoint", "no tensors in it")
    return {name: stored[name].load() for name in sorted(stored)}


def _join(prefix: str, name: str | int) -> str:
    joined = f"{prefix}.{name}" if prefix else str(name)
    if len(joined) > MAX_NAME:
        raise BundleError("bad-checkpoint", f"a name longer than {MAX_NAME} characters")
    return joined


def _members(value: Any) -> list[tuple[Any, Any]]:
    """Return the named members of a container; a module gives its parameters, buffers, modules."""
    if isinstance(value, dict):
        return [(name, item) for name, item in value.items() if isinstance(name, str | int)]
    if not isinstance(value, InertObject):
        return []
    members: list[tuple[Any, Any]] = []
    for group in ("_parameters", "_buffers", "_modules"):
        table = value.state.get(group)
        if isinstance(table, dict):
            members.extend(_members(table))
    return members or _members(value.state)
