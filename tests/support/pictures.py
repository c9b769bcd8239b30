"""Still pictures and animations with the marks of cameras, made from bytes."""

from __future__ import annotations

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
