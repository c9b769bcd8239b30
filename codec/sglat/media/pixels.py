"""Decoded frames to upright 8-bit bt709 RGB, by the flags of frame and stream."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from av.sidedata.sidedata import Type
from numpy.typing import NDArray

from sglat.errors import MediaError
from sglat.media.colour import (
    BT2020_NCL,
    UNSPECIFIED,
    Conversion,
    find_conversion,
    profile_primaries,
)

Orientation = tuple[bool, bool, bool]
"""Transpose, flip rows, flip columns, in this order."""

UPRIGHT: Final[Orientation] = (False, False, False)
# FFmpeg knows more types of side data than the installed PyAV may; a frame with one of them raises
# as soon as PyAV lists its side data, so those are deleted first. FFmpeg 8.1 ends at 31.
UNKNOWN_TYPES: Final = sorted(set(range(64)) - {known.value for known in Type})

# swscale flags bicubic, full chroma in and out, accurate rounding: the default conversion darkens
# every channel by a level, each way.
EXACT_CONVERSION: Final = 0x4 | 0x2000 | 0x4000 | 0x40000
MAX_SIDE: Final = 1 << 14  # 16384 pixels: 8K video with room; bounds the memory of one frame
# Matrix coefficients of H.273 that swscale applies.
KNOWN_MATRICES: Final = frozenset({1, UNSPECIFIED, 4, 5, 6, 7, BT2020_NCL})
RGB_MATRIX: Final = 0
BT709_MATRIX: Final = 1
BT2020_CL: Final = 10  # taken as non-constant luminance: the difference is small on skin
HD_SIDES: Final = (1280, 720)  # width or height from which unflagged video is bt709, as in players
FULL_SCALE_YUV: Final = 255 << 8  # swscale widens YUV to 16 bits by 8 zero bits
FULL_SCALE_RGB: Final = (1 << 16) - 1
LIMITED_RANGE: Final = 1
FULL_RANGE: Final = 2
# Whose luma has limited range unless flagged otherwise; gray of other codecs has full range.
LIMITED_BY_DEFAULT: Final = frozenset({"h264", "hevc", "libdav1d", "av1", "libaom-av1", "vp9"})
_LIGHT_LEVEL: Final = struct.Struct("<II")  # AVContentLightMetadata: MaxCLL, MaxFALL
_MASTERING_PEAK: Final = struct.Struct("<72xiiii")  # numerator, denominator, two flags
SEARCHED_BYTES: Final = 1 << 20  # at either end of a file
# Configuration record: a box of ISO files, or a mapping of Matroska with its data behind it
DOLBY_VISION: Final = re.compile(
    rb"\0\0\0[\x0d-\x40]dv[cvw]C|\x41\xe7\x84dv[cvw]C\x41\xed.", re.DOTALL
)
DOLBY_IPT_PROFILE: Final = 5  # the base layer is no HDR or SDR picture by itself
JPEG_START: Final = b"\xff\xd8\xff"
PHOTO_BRANDS: Final = (b"heic", b"heix", b"mif1", b"avif")
GAIN_MAPS: Final = (
    b"hdrgm:Version", b"urn:iso:std:iso:ts:21496:-1", b"aux:hdrgainmap", b"HDRGainMap", b"tmap",
)  # fmt: skip
MAX_PEAK_NITS: Final = 4000.0  # brighter statements are not of graded material


class PictureConverter:
    """Converts the frames of one stream.

    Args:
        codec: FFmpeg's name of the decoder.
        sample_aspect: width of a pixel by its height; None if square.
        path: the file, searched for what is not applied.
    """

    def __init__(
        self, codec: str, sample_aspect: Fraction | None = None, path: Path | None = None
    ) -> None:
        self.notes = [] if path is None else unapplied_notes(path)
        """What was done to colours, one line each."""
        self._codec = codec
        self._aspect = sample_aspect if sample_aspect and sample_aspect > 0 else Fraction(1)
        self._side_data = SideData()
        self._conversions: dict[tuple[int, int], Conversion | None] = {}
        self._profile: int | None = None
        """Code point of the primaries of the ICC profile; `UNSPECIFIED` without one, None before
        the first frame."""

    def picture(self, decoded: Any) -> NDArray[np.uint8]:
        """Return a PyAV frame as `[H, W, 3]` with square pixels."""
        if max(decoded.width, decoded.height) > MAX_SIDE:
            raise MediaError(
                "picture-too-large",
                f"at most {MAX_SIDE} pixels a side, found {decoded.width}x{decoded.height}",
            )
        width = decoded.width
        if self._aspect != 1:
            width = min(MAX_SIDE, max(1, round(width * self._aspect)))
        size = {"width": width, "height": decoded.height, "interpolation": EXACT_CONVERSION}
        conversion = self._conversion(decoded)
        self._choose_matrix(decoded, conversion)
        try:
            if conversion is None:
                picture = decoded.to_ndarray(format="rgb24", **size)
            else:
                samples = decoded.to_ndarray(format="rgb48le", **size)
                scale = FULL_SCALE_RGB if decoded.format.is_rgb else FULL_SCALE_YUV
                picture = conversion.apply(samples, full_scale=scale)
        except av.error.FFmpegError as error:
            raise MediaError(
                "colour-unknown",
                f"cannot convert {decoded.format.name} with matrix {decoded.colorspace} to RGB",
            ) from error
        if self._is_limited_gray(decoded):
            picture = _WIDER_RANGE[picture]
        matrix = self._side_data.find(decoded, "DISPLAYMATRIX").get("DISPLAYMATRIX")
        return make_upright(picture, display_orientation(matrix))

    def _conversion(self, decoded: Any) -> Conversion | None:
        profile = self._profile_of(decoded)
        primaries = int(decoded.color_primaries) if profile == UNSPECIFIED else profile
        key = (int(decoded.color_trc), primaries)
        if key not in self._conversions:
            peak = _stated_peak(
                self._side_data.find(decoded, "CONTENT_LIGHT_LEVEL", "MASTERING_DISPLAY_METADATA")
            )
            found = find_conversion(*key, peak_nits=peak)
            self._conversions[key] = found
            if found is not None:
                self.notes.append(found.note)
        return self._conversions[key]

    def _profile_of(self, decoded: Any) -> int:
        """Return the primaries of the first frame's ICC profile."""
        if self._profile is None:
            data = self._side_data.find(decoded, "ICC_PROFILE").get("ICC_PROFILE")
            found = UNSPECIFIED if data is None else profile_primaries(data)
            self._profile = UNSPECIFIED if found is None else found
            if found is None:
                self.notes.append("the ICC colour profile is not applied: colours may be off")
        return self._profile

    def _choose_matrix(self, decoded: Any, conversion: Conversion | None) -> None:
        if decoded.format.is_rgb:
            decoded.colorspace = RGB_MATRIX
            return
        matrix = int(decoded.colorspace)
        is_flagged = conversion is not None and self._profile == UNSPECIFIED
        if matrix == BT2020_CL or (matrix == UNSPECIFIED and is_flagged):
            decoded.colorspace = BT2020_NCL
        elif matrix == UNSPECIFIED:
            if decoded.width >= HD_SIDES[0] or decoded.height >= HD_SIDES[1]:
                decoded.colorspace = BT709_MATRIX
        elif matrix not in KNOWN_MATRICES:
            decoded.colorspace = UNSPECIFIED
            note = f"matrix {matrix} of H.273 is not supported: colours may be wrong"
            if note not in self.notes and len(decoded.format.components) > 2:  # not of gray
                self.notes.append(note)

    def _is_limited_gray(self, decoded: Any) -> bool:
        """Whether gray needs the expansion that swscale leaves out."""
        if not decoded.format.name.startswith(("gray", "ya")):
            return False
        if decoded.color_range == FULL_RANGE:
            return False
        return decoded.color_range == LIMITED_RANGE or self._codec in LIMITED_BY_DEFAULT


_WIDER_RANGE: Final = np.clip(
    np.round((np.arange(256) - 16) * (255 / 219)), 0, 255
).astype(np.uint8)  # fmt: skip


def unapplied_notes(path: Path) -> list[str]:
    """Return what a file has for better displays, which is left unused, one line each.

    Source: ETSI TS 103 572 and Dolby Vision Streams Within the ISO Base Media File Format, section
    3.1 (configuration record); ISO 21496-1 and the Ultra HDR format 1.1 (gain maps).
    """
    if not path.is_file():
        return []
    with path.open("rb") as file:
        data = file.read(SEARCHED_BYTES)
        file.seek(max(len(data), path.stat().st_size - SEARCHED_BYTES))
        data += file.read(SEARCHED_BYTES)
    notes = []
    if found := DOLBY_VISION.search(data):
        profile = data[found.end() + 2] >> 1 if found.end() + 2 < len(data) else 0
        if profile == DOLBY_IPT_PROFILE:
            notes.append(
                "Dolby Vision profile 5 is not supported and its colours will be wrong: make an HLG"
                " or SDR copy of the video first"
            )
        else:
            notes.append(f"Dolby Vision (profile {profile}) is not applied: its base layer is used")
    is_photo = data[:3] == JPEG_START or (data[4:8] == b"ftyp" and data[8:12] in PHOTO_BRANDS)
    if is_photo and any(word in data for word in GAIN_MAPS):
        notes.append("the HDR gain map is not applied: the SDR picture is used")
    return notes


def _stated_peak(side_data: dict[str, bytes]) -> float | None:
    """Return the peak in cd/m2 by the content's light level, else by the mastering display."""
    level = side_data.get("CONTENT_LIGHT_LEVEL", b"")
    if len(level) >= _LIGHT_LEVEL.size and (most := _LIGHT_LEVEL.unpack_from(level)[0]):
        return min(float(most), MAX_PEAK_NITS)
    display = side_data.get("MASTERING_DISPLAY_METADATA", b"")
    if len(display) >= _MASTERING_PEAK.size:
        numerator, denominator, _, has_luminance = _MASTERING_PEAK.unpack_from(display)
        if has_luminance and numerator > 0 and denominator > 0:
            return float(min(numerator / denominator, MAX_PEAK_NITS))
    return None


class Deinterlacer:
    """Makes whole frames of fields, one a frame, from the first frame that is flagged on.

    Frames come out by one later than they go in; progressive ones among them are left as they are.
    The filter is FFmpeg's bwdif, which predicts missing lines from space and time.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        """What was done, one line."""
        self._graph: Any = None
        self._shape: tuple[int, int, str] | None = None
        self._time_base = Fraction(1)

    def frames(self, decoded: Iterable[Any]) -> Iterator[Any]:
        """Yield as many frames as go in, with their time stamps."""
        for frame in decoded:
            shape = (frame.width, frame.height, frame.format.name)
            if self._graph is not None and shape != self._shape:
                yield from self._finish()
            if self._graph is None:
                if not frame.interlaced_frame:
                    yield frame
                    continue
                self._open(frame, shape)
            self._graph.vpush(frame)
            yield from self._pull()
        yield from self._finish()

    def _open(self, frame: Any, shape: tuple[int, int, str]) -> None:
        self.notes = ["interlaced video made progressive (bwdif)"]
        self._shape, self._time_base = shape, Fraction(frame.time_base or Fraction(1, 1000))
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=self._time_base
        )
        bwdif = graph.add("bwdif", "mode=send_frame:deint=interlaced")
        self._graph = graph.link_nodes(source, bwdif, graph.add("buffersink"))
        graph.configure()

    def _finish(self) -> Iterator[Any]:
        if self._graph is not None:
            self._graph.vpush(None)
            yield from self._pull()
            self._graph = None

    def _pull(self) -> Iterator[Any]:
        while True:
            try:
                frame = self._graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            if frame.pts is not None:  # the filter counts in half units
                frame.pts = round(frame.pts * Fraction(frame.time_base) / self._time_base)
            frame.time_base = self._time_base
            yield frame


class SideData:
    """Side data of the frames of one stream, of the types that PyAV knows."""

    def __init__(self) -> None:
        self._graph: Any = None
        self._shape: tuple[int, int, str] | None = None

    def find(self, decoded: Any, *names: str) -> dict[str, bytes]:
        """Return the payloads of a PyAV frame's side data by type, members of PyAV's `Type` such as
        `DISPLAYMATRIX`; absent types are left out."""
        shape = (decoded.width, decoded.height, decoded.format.name)
        if shape != self._shape:
            self._graph, self._shape = _stripping_graph(decoded), shape
        self._graph.vpush(decoded)
        stripped = self._graph.vpull()
        return {
            side.type.name: bytes(side) for side in stripped.side_data if side.type.name in names
        }


def _stripping_graph(decoded: Any) -> Any:
    """Return a filter graph that passes frames on without side data of unknown types."""
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=decoded.width, height=decoded.height, format=decoded.format,
        time_base=Fraction(decoded.time_base or 1),
    )  # fmt: skip
    filters = [graph.add("sidedata", f"mode=delete:type={number}") for number in UNKNOWN_TYPES]
    graph.link_nodes(source, *filters, graph.add("buffersink")).configure()
    return graph


def display_orientation(matrix: bytes | None) -> Orientation:
    """Return (transpose, flip rows, flip columns) that make a stored picture upright.

    Args:
        matrix: the nine 16.16 numbers of a display matrix, little-endian; None if there is none.

    Only quarter turns and mirrors are honoured; other angles are left alone, as players do.
    Source: ISO/IEC 14496-12, track header matrix; the matrix maps (x, y) to (ax + cy, bx + dy).
    """
    if matrix is None:
        return UPRIGHT
    numbers = np.frombuffer(matrix, dtype="<i4")
    a, b, c, d = (int(np.sign(numbers[i])) for i in (0, 1, 3, 4))
    if abs(int(numbers[0])) > abs(int(numbers[1])):
        return False, d < 0, a < 0
    return True, b < 0, c < 0


def make_upright(picture: NDArray[np.uint8], orientation: Orientation) -> NDArray[np.uint8]:
    """Apply a display orientation to `[H, W, 3]`."""
    transpose, flip_rows, flip_columns = orientation
    if transpose:
        picture = picture.transpose(1, 0, 2)
    if flip_rows:
        picture = picture[::-1]
    if flip_columns:
        picture = picture[:, ::-1]
    return np.ascontiguousarray(picture)
