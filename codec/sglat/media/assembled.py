"""Pictures that FFmpeg gives only in parts: HEIC and AVIF of tiles, and animated WebP.

FFmpeg gives each tile of a HEIC as a stream of its own, and does not draw a WebP's canvas.

Source: ISO/IEC 14496-12 (meta, iinf, iloc, iref, iprp); ISO/IEC 23008-12, sections 6.6.2.3 (grid),
6.5.10 (irot) and 6.5.12 (imir); RFC 9649 (WebP), sections 2.7.1.1 (animation) and 2.5 (RIFF).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO, Final

import av
import numpy as np
from numpy.typing import NDArray

from sglat.errors import MediaError
from sglat.media.pixels import MAX_SIDE, UPRIGHT, Orientation, PictureConverter, make_upright

BRANDS: Final = (b"heic", b"heix", b"mif1", b"avif", b"msf1", b"heim", b"heis", b"miaf")
MAX_META_BYTES: Final = 1 << 24  # item tables with Exif and colour profiles stay below one MiB
MAX_TILES: Final = 1 << 12
WEBP_TIME_BASE: Final = Fraction(1, 1000)
FALLBACK_MILLISECONDS: Final = 100  # of frames that state no duration, as browsers show them
HAS_ANIMATION: Final = 0x02  # flags of VP8X
HAS_ALPHA: Final = 0x10
IS_CLEARED: Final = 0x01  # flags of ANMF: the frame's place is cleared after it was shown
IS_OPAQUE: Final = 0x02  # it replaces what lies below it
WHITE: Final = 255  # shows through where nothing is drawn


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
    """Converts the tiles of a picture one by one and puts them together by a grid."""

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
    """Yield the one picture of an open container."""
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
            # 0 exchanges top and bottom, 1 left and right (ISO/IEC 23008-12:2022, 6.5.12)
            shown = shown[:, ::-1] if body[0] & 1 else shown[::-1]
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


@dataclass(frozen=True, kw_only=True)
class WebpAnimation:
    """An animated WebP file."""

    path: Path
    width: int
    height: int
    frame_count: int
    milliseconds: int
    """Of all frames together."""

    @property
    def frame_rate(self) -> Fraction:
        """Frames per second on average."""
        return Fraction(1000 * self.frame_count, self.milliseconds)

    def frames(self) -> Iterator[Any]:
        """Yield whole pictures as PyAV frames; frames that cannot be decoded change nothing."""
        canvas = np.full((self.height, self.width, 3), WHITE, np.uint8)
        clock = 0
        with self.path.open("rb") as file:
            for body in _animation_chunks(file):
                x, y, _, _, duration, flags = _frame_header(body)
                picture = _decode_part(body)
                place = canvas[2 * y :, 2 * x :]
                if picture is not None:
                    picture = picture[: place.shape[0], : place.shape[1]]
                    place = place[: picture.shape[0], : picture.shape[1]]
                    _draw(place, picture, is_opaque=bool(flags & IS_OPAQUE))
                frame = av.VideoFrame.from_ndarray(canvas, format="rgb24")
                frame.pts, frame.time_base = clock, WEBP_TIME_BASE
                frame.duration = duration or FALLBACK_MILLISECONDS
                clock += frame.duration
                yield frame
                if flags & IS_CLEARED and picture is not None:
                    place[:] = WHITE


def open_animation(path: Path) -> WebpAnimation | None:
    """Return the animation in a file; None for stills and everything else.

    Raises:
        MediaError: a canvas that is too large.
    """
    try:
        with path.open("rb") as file:
            head = file.read(30)
            is_webp = head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X"
            if not is_webp or len(head) < 30 or not head[20] & HAS_ANIMATION:
                return None
            width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
            file.seek(0)
            durations = [_frame_header(body)[4] for body in _animation_chunks(file)]
    except OSError:
        return None
    if not durations:
        return None
    if max(width, height) > MAX_SIDE:
        raise MediaError(
            "picture-too-large", f"at most {MAX_SIDE} pixels a side, found {width}x{height}"
        )
    total = sum(duration or FALLBACK_MILLISECONDS for duration in durations)
    return WebpAnimation(
        path=path, width=width, height=height, frame_count=len(durations), milliseconds=total
    )


def _animation_chunks(file: BinaryIO) -> Iterator[bytes]:
    """Yield the payloads of all complete ANMF chunks."""
    file.seek(12)
    while True:
        head = file.read(8)
        if len(head) < 8:
            return
        kind, size = struct.unpack("<4sI", head)
        if kind == b"ANMF":
            body = file.read(size)
            if len(body) < max(size, 16):
                return
            yield body
            file.seek(size & 1, 1)
        else:
            file.seek(size + (size & 1), 1)


def _frame_header(body: bytes) -> tuple[int, int, int, int, int, int]:
    """Return x / 2, y / 2, width, height, duration in milliseconds and flags."""
    x, y, width, height, duration = (
        int.from_bytes(body[at : at + 3], "little") for at in (0, 3, 6, 9, 12)
    )
    return x, y, width + 1, height + 1, duration, body[15]


def _decode_part(body: bytes) -> NDArray[np.uint8] | None:
    """Return one frame's own picture `[H, W, 4]` RGBA."""
    _, _, width, height, _, _ = _frame_header(body)
    data = body[16:]
    if data[:4] == b"ALPH":  # alpha beside a lossy picture needs the extended layout
        size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        data = struct.pack("<4sIB3x", b"VP8X", 10, HAS_ALPHA) + size + data
    still = struct.pack("<4sI4s", b"RIFF", len(data) + 4, b"WEBP") + data
    try:
        with av.open(io.BytesIO(still), mode="r", format="webp_pipe") as container:
            return np.asarray(next(container.decode(video=0)).to_ndarray(format="rgba"))
    except (av.error.FFmpegError, StopIteration, IndexError):
        return None


def _draw(place: NDArray[np.uint8], picture: NDArray[np.uint8], *, is_opaque: bool) -> None:
    """Draw RGBA over RGB in place; what is transparent in an opaque frame becomes white."""
    alpha = picture[..., 3:].astype(np.uint16)
    below = np.uint16(WHITE) if is_opaque else place.astype(np.uint16)
    mixed = picture[..., :3] * alpha + below * (255 - alpha)
    place[:] = (mixed + 127) // 255
