"""Stills of tiles: HEIC and AVIF pictures that are a grid of smaller ones, as phones write them.

FFmpeg gives each tile as a stream of its own; the grid itself is read here.

Source: ISO/IEC 14496-12 (meta, iinf, iloc, iref, iprp); ISO/IEC 23008-12, sections 6.6.2.3 (grid),
6.5.10 (irot) and 6.5.12 (imir).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from numpy.typing import NDArray

from sglat.errors import MediaError
from sglat.media.pixels import PictureConverter
from sglat.media.upright import UPRIGHT, Orientation, make_upright

BRANDS: Final = (b"heic", b"heix", b"mif1", b"avif", b"msf1", b"heim", b"heis", b"miaf")
MAX_META_BYTES: Final = 1 << 24  # item tables with Exif and colour profiles stay below one MiB
MAX_TILES: Final = 1 << 12


@dataclass(frozen=True, kw_only=True)
class Grid:
    """How tiles make a picture."""

    rows: int
    columns: int
    width: int
    """Of the whole picture in pixels, before it is turned."""
    height: int
    tiles: tuple[int, ...]
    """Item numbers, row by row."""
    orientation: Orientation


@dataclass(frozen=True)
class TiledFrame:
    """The decoded tiles of one picture, in the place of a PyAV frame."""

    tiles: list[Any]
    pts: int = 0
    duration: int = 0
    interlaced_frame: bool = False
    width: int = 0
    height: int = 0
    format: Any = None


class TiledConverter:
    """Puts tiles together.

    Args:
        inner: converts one tile.
        grid: where tiles belong.
    """

    def __init__(self, inner: PictureConverter, grid: Grid) -> None:
        self._inner, self._grid = inner, grid

    @property
    def notes(self) -> list[str]:
        """What was done to colours, one line each."""
        return self._inner.notes

    def picture(self, decoded: TiledFrame) -> NDArray[np.uint8]:
        """Return the whole picture `[H, W, 3]`, upright."""
        grid = self._grid
        tiles = [self._inner.picture(tile) for tile in decoded.tiles]
        rows = [
            np.concatenate(tiles[at : at + grid.columns], axis=1)
            for at in range(0, len(tiles), grid.columns)
        ]
        whole = np.concatenate(rows)[: grid.height, : grid.width]
        return make_upright(whole, grid.orientation)


def tiled_frames(container: Any, grid: Grid) -> Iterator[TiledFrame]:
    """Yield the one picture of an open container.

    Raises:
        MediaError: a tile is missing.
    """
    found: dict[int, Any] = {}
    streams = [s for s in container.streams.video if s.id in grid.tiles]
    for packet in container.demux(streams):
        if packet.stream.id not in found:
            try:
                frames = packet.decode()
            except av.error.FFmpegError:
                continue
            if frames:
                found[packet.stream.id] = frames[0]
    missing = [tile for tile in grid.tiles if tile not in found]
    if missing:
        raise MediaError(
            "media-damaged", f"{len(missing)} of the {len(grid.tiles)} tiles cannot be read"
        )
    yield TiledFrame([found[tile] for tile in grid.tiles])


def read_grid(path: Path) -> Grid | None:
    """Return the grid of a HEIC or AVIF file; None for any other file, also a damaged one."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
            if head[4:8] != b"ftyp" or head[8:12] not in BRANDS:
                return None
            file.seek(0)
            meta = _find_meta(file)
            return None if meta is None else _grid_of(meta, file)
    except (OSError, struct.error, IndexError, KeyError, ValueError):
        return None


def _find_meta(file: Any) -> bytes | None:
    while True:
        head = file.read(8)
        if len(head) < 8:
            return None
        size, kind = struct.unpack(">I4s", head)
        if kind == b"meta":
            return bytes(file.read(min(size - 8, MAX_META_BYTES)))[4:]
        if size < 8:
            return None
        file.seek(size - 8, 1)


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if size < 8:
            return
        yield kind, data[at + 8 : at + size]
        at += size


def _grid_of(meta: bytes, file: Any) -> Grid | None:
    boxes = dict(_boxes(meta))
    primary = _primary(boxes[b"pitm"])
    if _item_types(boxes[b"iinf"]).get(primary) != b"grid":
        return None
    data = _item_data(boxes[b"iloc"], boxes.get(b"idat", b""), primary, file)
    _, flags, rows, columns = struct.unpack_from(">4B", data)
    width, height = struct.unpack_from(">II" if flags & 1 else ">HH", data, 4)
    tiles = _references(boxes[b"iref"], primary)
    if not len(tiles) == (rows + 1) * (columns + 1) <= MAX_TILES:
        return None
    return Grid(
        rows=rows + 1, columns=columns + 1, width=width, height=height, tiles=tiles,
        orientation=_orientation(boxes[b"iprp"], primary),
    )  # fmt: skip


def _primary(box: bytes) -> int:
    return int(struct.unpack_from(">I" if box[0] else ">H", box, 4)[0])


def _item_types(box: bytes) -> dict[int, bytes]:
    types = {}
    for kind, entry in _boxes(box[6:] if box[0] == 0 else box[8:]):
        if kind == b"infe" and entry[0] >= 2:
            wide = entry[0] > 2
            number = struct.unpack_from(">I" if wide else ">H", entry, 4)[0]
            at = 10 if wide else 8
            types[number] = entry[at : at + 4]
    return types


def _item_data(box: bytes, inside: bytes, wanted: int, file: Any) -> bytes:
    version, sizes = box[0], (box[4] >> 4, box[4] & 15, box[5] >> 4, box[5] & 15)
    offset_size, length_size, base_size = sizes[:3]
    index_size = sizes[3] if version in (1, 2) else 0
    at = 6

    def take(size: int) -> int:
        nonlocal at
        at += size
        return int.from_bytes(box[at - size : at], "big")

    for _ in range(take(4 if version == 2 else 2)):
        number = take(4 if version == 2 else 2)
        method = take(2) & 15 if version in (1, 2) else 0
        take(2)
        base = take(base_size)
        data = b""
        for _ in range(take(2)):
            take(index_size)
            offset, length = base + take(offset_size), take(length_size)
            if number != wanted:
                continue
            if method == 1:
                data += inside[offset : offset + length]
            else:
                file.seek(offset)
                data += file.read(min(length, 64))
        if number == wanted:
            return data
    raise KeyError(wanted)


def _references(box: bytes, source: int) -> tuple[int, ...]:
    number = ">I" if box[0] else ">H"
    size = struct.calcsize(number)
    for kind, body in _boxes(box[4:]):
        if kind == b"dimg" and struct.unpack_from(number, body)[0] == source:
            count = struct.unpack_from(">H", body, size)[0]
            return struct.unpack_from(f">{count}{number[1]}", body, size + 2)
    return ()


def _orientation(box: bytes, item: int) -> Orientation:
    """Return how an item is turned and mirrored, by its properties in their order."""
    parts = dict(_boxes(box))
    properties = list(_boxes(parts[b"ipco"]))
    numbers = np.arange(6, dtype=np.uint8).reshape(2, 3, 1)
    shown = numbers
    for index in _properties_of(parts[b"ipma"], item):
        kind, body = properties[index - 1]
        if kind == b"irot":
            shown = np.rot90(shown, body[0] & 3)
        elif kind == b"imir":
            shown = shown[::-1] if body[0] & 1 else shown[:, ::-1]
    for transpose, flip_rows, flip_columns in product((False, True), repeat=3):
        found = (transpose, flip_rows, flip_columns)
        if np.array_equal(make_upright(numbers, found), shown):
            return found
    return UPRIGHT


def _properties_of(box: bytes, item: int) -> list[int]:
    wide_item, wide_index = box[0] > 0, box[3] & 1
    at = 8
    for _ in range(struct.unpack_from(">I", box, 4)[0]):
        number = struct.unpack_from(">I" if wide_item else ">H", box, at)[0]
        at += 4 if wide_item else 2
        count, at = box[at], at + 1
        size = 2 if wide_index else 1
        mask = 0x7FFF if wide_index else 0x7F
        found = [
            int.from_bytes(box[at + i * size : at + (i + 1) * size], "big") & mask
            for i in range(count)
        ]
        at += count * size
        if number == item:
            return [index for index in found if index]
    return []
