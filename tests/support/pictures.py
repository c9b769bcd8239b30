"""Still pictures and animations as cameras and phones write them, made from bytes."""

from __future__ import annotations

import io
import struct
import zlib
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray


def jpeg(picture: NDArray[np.uint8]) -> bytes:
    """Return `[H, W, 3]` RGB as a JPEG file without EXIF."""
    context = av.CodecContext.create("mjpeg", "w")
    context.width, context.height = picture.shape[1], picture.shape[0]
    context.pix_fmt, context.time_base = "yuvj444p", Fraction(1, 25)
    context.options = {"qmin": "1", "qmax": "1"}
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    frame = frame.reformat(format="yuvj444p")
    frame.pts = 0
    return b"".join(bytes(p) for p in [*context.encode(frame), *context.encode(None)])


def exif(orientation: int) -> bytes:
    """Return a TIFF structure with one entry, the orientation."""
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"MM\0*\0\0\0\x08" + struct.pack(">H", 1) + entry + bytes(4)


def jpeg_with_exif(picture: NDArray[np.uint8], orientation: int) -> bytes:
    """Return a JPEG file whose EXIF tells how to turn it."""
    plain, body = jpeg(picture), b"Exif\0\0" + exif(orientation)
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + plain[2:]


def png_with_exif(png: bytes, orientation: int) -> bytes:
    """Insert an eXIf chunk behind the header of a PNG file."""
    body = b"eXIf" + exif(orientation)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:33] + chunk + png[33:]


def stored_as(picture: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Return what a camera stores so that EXIF's orientation makes it this picture."""
    stored = {
        1: picture,
        2: picture[:, ::-1],
        3: picture[::-1, ::-1],
        4: picture[::-1],
        5: picture.transpose(1, 0, 2),
        6: np.rot90(picture, 1),
        7: picture[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(picture, -1),
    }[orientation]
    return np.ascontiguousarray(stored)


def heic(
    tiles: list[NDArray[np.uint8]],
    *,
    grid: tuple[int, int, int, int] | None = None,
    turns: int = 0,
    is_mirrored: bool = False,
    is_inside: bool = False,
) -> bytes:
    """Return a HEIC file of one picture, or of a grid of tiles.

    Args:
        tiles: `[H, W, 3]` RGB of one size.
        grid: rows, columns, width and height of the whole picture.
        turns: quarter turns counter-clockwise when shown.
        is_mirrored: left and right are exchanged after that.
        is_inside: the grid's description lies in the tables (`idat`), as phones have it.
    """
    coded = [_hevc(tile) for tile in tiles]
    numbers, data = list(range(1, len(tiles) + 1)), [each[1] for each in coded]
    height, width = tiles[0].shape[:2]
    properties = [coded[0][0], _full_box(b"ispe", struct.pack(">II", width, height))]
    uses = {number: [1, 2] for number in numbers}
    kinds, primary, references, inside = dict.fromkeys(numbers, b"hvc1"), 1, b"", b""
    if grid is not None:
        rows, columns, whole_width, whole_height = grid
        primary = len(tiles) + 1
        kinds[primary] = b"grid"
        described = struct.pack(">4B2H", 0, 0, rows - 1, columns - 1, whole_width, whole_height)
        data.append(described)
        inside = _box(b"idat", described) if is_inside else b""
        properties.append(_full_box(b"ispe", struct.pack(">II", whole_width, whole_height)))
        uses[primary] = [3]
        link = struct.pack(f">HH{len(numbers)}H", primary, len(numbers), *numbers)
        references = _full_box(b"iref", _box(b"dimg", link))
    if turns:
        properties.append(_box(b"irot", bytes([turns])))
        uses[primary].append(len(properties))
    if is_mirrored:
        properties.append(_box(b"imir", b"\1"))
        uses[primary].append(len(properties))
    entries = b"".join(
        _full_box(b"infe", struct.pack(">HH4s", number, 0, kind) + b"\0", version=2)
        for number, kind in kinds.items()
    )
    used = b"".join(struct.pack(">HB", n, len(found)) + bytes(found) for n, found in uses.items())
    front = _box(b"ftyp", b"heic" + bytes(4) + b"mif1heic")

    def tables(start: int) -> bytes:
        places, at = b"", start
        for number, part in enumerate(data, 1):
            is_idat = is_inside and kinds[number] == b"grid"
            place = 0 if is_idat else at
            places += struct.pack(">HHHHII", number, is_idat, 0, 1, place, len(part))
            at += len(part)
        iloc = _full_box(b"iloc", b"\x44\0" + struct.pack(">H", len(data)) + places, version=1)
        return _full_box(
            b"meta",
            _full_box(b"hdlr", bytes(4) + b"pict" + bytes(13))
            + _full_box(b"pitm", struct.pack(">H", primary))
            + iloc
            + _full_box(b"iinf", struct.pack(">H", len(kinds)) + entries)
            + references
            + _box(
                b"iprp",
                _box(b"ipco", b"".join(properties))
                + _full_box(b"ipma", struct.pack(">I", len(uses)) + used),
            )
            + inside,
        )

    start = len(front) + len(tables(0)) + 8
    return front + tables(start) + _box(b"mdat", b"".join(data))


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body) + 8, kind) + body


def _full_box(kind: bytes, body: bytes, *, version: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", version << 24) + body)


def _hevc(picture: NDArray[np.uint8]) -> tuple[bytes, bytes]:
    """Return the decoder configuration box and the data of one HEVC picture."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx265", rate=25)
        stream.options = {"x265-params": "log-level=none:crf=10"}
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts = 0
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            packet.dts = packet.pts  # libx265 leaves it open for a single frame
            container.mux(packet)
    whole = buffer.getvalue()
    at = whole.index(b"hvcC") - 4
    size = struct.unpack_from(">I", whole, at)[0]
    with av.open(io.BytesIO(whole)) as container:
        data = bytes(next(iter(container.demux(video=0))))
    return whole[at : at + size], data


def animated_webp(
    size: tuple[int, int],
    frames: list[tuple[NDArray[np.uint8], tuple[int, int], int, int]],
) -> bytes:
    """Return an animated WebP file.

    Args:
        size: width and height of the canvas.
        frames: each an RGBA picture, its even place (x, y), milliseconds and flags of ANMF.
    """
    chunks = b""
    for picture, (x, y), milliseconds, flags in frames:
        height, width = picture.shape[:2]
        head = b"".join(
            value.to_bytes(3, "little")
            for value in (x // 2, y // 2, width - 1, height - 1, milliseconds)
        )
        chunks += _chunk(b"ANMF", head + bytes([flags]) + _webp_bits(picture))
    canvas = b"".join((side - 1).to_bytes(3, "little") for side in size)
    body = _chunk(b"VP8X", b"\x12\0\0\0" + canvas) + _chunk(b"ANIM", bytes(6)) + chunks
    return _chunk(b"RIFF", b"WEBP" + body)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) & 1)


def _webp_bits(picture: NDArray[np.uint8]) -> bytes:
    """Return the lossless bitstream chunk of an RGBA picture."""
    context = av.CodecContext.create("libwebp", "w")
    context.width, context.height = picture.shape[1], picture.shape[0]
    context.pix_fmt, context.time_base = "bgra", Fraction(1, 25)
    context.options = {"lossless": "1"}
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgba")
    frame = frame.reformat(format="bgra")
    frame.pts = 0
    still = b"".join(bytes(p) for p in [*context.encode(frame), *context.encode(None)])
    return still[still.index(b"VP8L") :]
