"""HDR and wide primaries to bt709 SDR, against closed formulas written down a second time."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sglat.media.colour import (
    HLG,
    PQ,
    WHITE_NITS,
    find_conversion,
    hlg_to_scene,
    nits_to_pq,
    pq_to_nits,
    primaries_matrix,
    tone_curve,
)
from sglat.media.reader import VideoReader
from tests.support.pictures import jpeg
from tests.support.tolerances import HDR_LEVELS, PROFILE_LEVELS, TABLE_LEVELS
from tests.support.video import moving_square, write_flagged, write_video

SKIN = (171, 116, 107)
GRAYS = [(16, 16, 16), (90, 90, 90), (150, 150, 150)]
FLAGS = {"hlg": (HLG, 9), "pq": (PQ, 9)}


def hdr_of(rgb: tuple[int, int, int], transfer: int) -> NDArray[np.float64]:
    """Return the HLG or PQ signal in [0, 1] whose display light is that of an SDR colour."""
    nits = primaries_matrix("bt709", "bt2020") @ (np.array(rgb) / 255) ** 2.4 * WHITE_NITS
    if transfer == PQ:
        power = (nits / 10000) ** (2610 / 16384)
        return np.asarray(
            ((3424 / 4096 + 2413 / 128 * power) / (1 + 2392 / 128 * power)) ** (2523 / 32)
        )
    light = nits / 1000
    scene = light * (light @ [0.2627, 0.6780, 0.0593]) ** (-0.2 / 1.2)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    high = a * np.log(np.maximum(12 * scene - b, 1e-9)) + c
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), high)


def yuv_2020(signal: NDArray[np.float64]) -> tuple[int, int, int]:
    """Return 10-bit limited-range YCbCr of a bt2020 R'G'B' signal."""
    luma = float(signal @ [0.2627, 0.6780, 0.0593])
    blue, red = (signal[2] - luma) / 1.8814, (signal[0] - luma) / 1.4746
    return round(876 * luma + 64), round(896 * blue + 512), round(896 * red + 512)


@pytest.mark.parametrize("kind", ["hlg", "pq"])
@pytest.mark.parametrize("colour", [SKIN, *GRAYS, (60, 110, 70), (40, 60, 140)])
def test_hdr_video_shows_the_colours_of_its_sdr_original(
    tmp_path: Path, kind: str, colour: tuple[int, int, int]
) -> None:
    transfer, primaries = FLAGS[kind]
    planes = yuv_2020(hdr_of(colour, transfer))
    path = write_flagged(
        tmp_path / "a.mkv", planes, "yuv420p10le", matrix=9, transfer=transfer, primaries=primaries
    )
    with VideoReader(path) as reader:
        found = next(iter(reader)).picture[20, 20].astype(int)
        assert any("HDR" in note for note in reader.notes)
    assert np.abs(found - colour).max() <= HDR_LEVELS


def test_sdr_video_is_left_alone_and_nothing_is_said(tmp_path: Path) -> None:
    path = write_flagged(
        tmp_path / "a.mkv", (126, 128, 128), "yuv420p", matrix=1, transfer=1, primaries=1
    )
    with VideoReader(path) as reader:
        assert next(iter(reader)).picture[20, 20].tolist() == [128, 128, 128]
        assert reader.notes == []


@pytest.mark.parametrize("primaries", [9, 12])
def test_wide_primaries_of_sdr_video_become_bt709(tmp_path: Path, primaries: int) -> None:
    """The same code in wider primaries is a more saturated colour."""
    path = write_flagged(
        tmp_path / "a.mkv", (500, 470, 590), "yuv420p10le", matrix=9, transfer=1,
        primaries=primaries,
    )  # fmt: skip
    plain = write_flagged(
        tmp_path / "b.mkv", (500, 470, 590), "yuv420p10le", matrix=9, transfer=1, primaries=1
    )
    colours = []
    for each in (path, plain):
        with VideoReader(each) as reader:
            colours.append(next(iter(reader)).picture[20, 20].astype(int))
    assert np.ptp(colours[0]) > np.ptp(colours[1]) + 3


@pytest.mark.parametrize("transfer", [HLG, PQ, 1])
@pytest.mark.parametrize(("primaries", "name"), [(9, "bt2020"), (12, "P3")])
def test_the_tables_agree_with_the_formulas(transfer: int, primaries: int, name: str) -> None:
    conversion = find_conversion(transfer, primaries)
    assert conversion is not None
    samples = np.random.default_rng(0).integers(0, 65281, (70, 50, 3)).astype(np.uint16)
    signal = samples / 65280
    if transfer == HLG:
        scene = hlg_to_scene(signal)
        nits = 1000 * scene * (scene @ [0.2627, 0.6780, 0.0593])[..., None] ** 0.2
    else:
        nits = pq_to_nits(signal) if transfer == PQ else WHITE_NITS * signal**2.4
    if transfer != 1:
        most = nits.max(axis=-1, keepdims=True)
        nits = nits * tone_curve(most, peak_nits=1000.0) / most
    light = np.clip(nits / WHITE_NITS @ primaries_matrix(name).T, 0, 1)
    expected = 255 * light ** (1 / 2.4)
    found = conversion.apply(samples, full_scale=65280)
    assert np.abs(found - expected).max() <= TABLE_LEVELS


def test_the_curve_keeps_mid_tones_and_takes_the_peak_to_white() -> None:
    nits = np.array([1.0, 40.0, 85.0, 1000.0, 3000.0])
    found = tone_curve(nits, peak_nits=1000.0)
    assert np.allclose(found[:3], nits[:3])
    assert np.allclose(found[3:], WHITE_NITS, rtol=1e-6)


def test_the_curve_never_falls() -> None:
    nits = pq_to_nits(np.linspace(0, 1, 4000))
    for peak in (406.0, 1000.0, 4000.0):
        assert (np.diff(tone_curve(nits, peak_nits=peak)) >= -1e-9).all()


def test_pq_and_its_inverse_agree() -> None:
    signal = np.linspace(0.01, 1, 100)
    assert np.allclose(nits_to_pq(pq_to_nits(signal)), signal)


def test_the_two_halves_of_hlg_meet() -> None:
    below, above = hlg_to_scene(np.array([0.5, 0.5 + 1e-9]))
    assert abs(below - above) < 1e-7
    assert abs(float(hlg_to_scene(np.array(1.0))) - 1) < 1e-6


def test_white_stays_white_between_primaries() -> None:
    for name in ("bt2020", "P3"):
        assert np.allclose(primaries_matrix(name) @ np.ones(3), 1)
    # BT.2087-0, section 2
    assert np.allclose(primaries_matrix("bt709", "bt2020")[0], [0.6274, 0.3293, 0.0433], atol=1e-4)


@pytest.mark.parametrize(("transfer", "primaries"), [(1, 1), (2, 2), (6, 6), (13, 1), (1, 5)])
def test_ordinary_flags_need_no_conversion(transfer: int, primaries: int) -> None:
    assert find_conversion(transfer, primaries) is None


@pytest.mark.parametrize(
    ("matrix", "span", "planes", "expected"),
    [
        (1, 1, (150, 100, 160), (213, 145, 97)),
        (6, 1, (150, 100, 160), (207, 141, 100)),
        (5, 2, (150, 100, 160), (195, 137, 100)),
        (1, 2, (150, 100, 160), (200, 140, 98)),
        (2, 0, (150, 100, 160), (207, 141, 100)),
    ],
)
def test_matrix_and_range_follow_the_flags(
    tmp_path: Path,
    matrix: int,
    span: int,
    planes: tuple[int, int, int],
    expected: tuple[int, int, int],
) -> None:
    path = write_flagged(
        tmp_path / "a.mkv", planes, "yuv420p", matrix=matrix, transfer=2, primaries=2, span=span
    )
    with VideoReader(path) as reader:
        found = next(iter(reader)).picture[20, 20].astype(int)
    assert np.abs(found - expected).max() <= 1


def test_unflagged_hd_video_is_bt709(tmp_path: Path) -> None:
    path = write_flagged(
        tmp_path / "a.mkv", (150, 100, 160), "yuv420p", matrix=2, transfer=2, primaries=2,
        size=(1280, 720),
    )  # fmt: skip
    with VideoReader(path) as reader:
        found = next(iter(reader)).picture[20, 20].astype(int)
    assert np.abs(found - (213, 145, 97)).max() <= 1


@pytest.mark.parametrize(("span", "expected"), [(1, 255), (2, 235), (0, 235)])
def test_gray_follows_its_range(tmp_path: Path, span: int, expected: int) -> None:
    path = write_flagged(
        tmp_path / "a.mkv", (235,), "gray", matrix=2, transfer=2, primaries=2, span=span,
        codec="ffv1",
    )  # fmt: skip
    with VideoReader(path) as reader:
        assert next(iter(reader)).picture[20, 20].tolist() == [expected] * 3


def test_a_matrix_that_cannot_be_applied_is_said(tmp_path: Path) -> None:
    path = write_flagged(
        tmp_path / "a.mkv", (126, 128, 128), "yuv420p", matrix=8, transfer=1, primaries=1,
        time_base=Fraction(1, 25),
    )  # fmt: skip
    with VideoReader(path) as reader:
        assert next(iter(reader)).picture.shape == (48, 64, 3)
        assert any("matrix 8" in note for note in reader.notes)


SRGB_TO_D50 = np.array(  # IEC 61966-2-1, adapted
    [[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]]
)
PROFILES = {"bt709": SRGB_TO_D50, "P3": SRGB_TO_D50 @ primaries_matrix("P3"), "other": np.eye(3)}


def icc_profile(primaries: str, *, space: bytes = b"RGB ") -> bytes:
    """Return the parts of an ICC profile that are read."""
    tags, body = b"", b""
    for number, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ")):
        tags += struct.pack(">4sII", name, 168 + 20 * number, 20)
        values = np.round(PROFILES[primaries][:, number] * 65536).astype(int).tolist()
        body += struct.pack(">4sI3i", b"XYZ ", 0, *values)
    return bytes(16) + space + bytes(108) + struct.pack(">I", 3) + tags + body


def jpeg_with_profile(colour: tuple[int, int, int], profile: bytes) -> bytes:
    plain = jpeg(np.full((48, 64, 3), colour, np.uint8))
    body = b"ICC_PROFILE\0\1\1" + profile
    return plain[:2] + b"\xff\xe2" + struct.pack(">H", len(body) + 2) + body + plain[2:]


def read_photo(path: Path, data: bytes) -> tuple[NDArray[np.int64], list[str]]:
    """Return a pixel of a picture file, and what is said of it."""
    path.write_bytes(data)
    with VideoReader(path) as reader:
        return next(iter(reader)).picture[20, 20].astype(int), reader.notes


@pytest.mark.parametrize("colour", [SKIN, (60, 110, 70), (40, 60, 140)])
def test_a_photo_with_a_p3_profile_shows_its_colours(
    tmp_path: Path, colour: tuple[int, int, int]
) -> None:
    linear = np.power(np.array(colour) / 255, 2.4)
    p3 = np.power(primaries_matrix("bt709", "P3") @ linear, 1 / 2.4)
    stored = tuple(np.round(255 * p3).astype(int).tolist())
    found, notes = read_photo(tmp_path / "a.jpg", jpeg_with_profile(stored, icc_profile("P3")))
    assert np.abs(found - colour).max() <= PROFILE_LEVELS
    assert notes == ["P3 colours converted to bt709"]


@pytest.mark.parametrize("profile", [icc_profile("bt709"), icc_profile("other", space=b"GRAY")])
def test_a_photo_with_an_ordinary_profile_is_left_alone(tmp_path: Path, profile: bytes) -> None:
    found, notes = read_photo(tmp_path / "a.jpg", jpeg_with_profile(SKIN, profile))
    assert np.abs(found - SKIN).max() <= HDR_LEVELS
    assert notes == []


@pytest.mark.parametrize("profile", [icc_profile("other"), icc_profile("P3")[:150], b"\xff" * 140])
def test_a_profile_that_is_not_applied_is_said(tmp_path: Path, profile: bytes) -> None:
    notes = read_photo(tmp_path / "a.jpg", jpeg_with_profile(SKIN, profile))[1]
    assert notes == ["the ICC colour profile is not applied: colours may be off"]


def test_a_gain_map_is_said(tmp_path: Path) -> None:
    body = b'http://ns.adobe.com/xap/1.0/\0<rdf:Description hdrgm:Version="1.0"/>'
    plain = jpeg(moving_square(1))
    data = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + plain[2:]
    notes = read_photo(tmp_path / "a.jpg", data)[1]
    assert notes == ["the HDR gain map is not applied: the SDR picture is used"]


@pytest.mark.parametrize(
    ("profile", "said"), [(5, "profile 5 is not supported"), (8, "(profile 8) is not applied")]
)
def test_dolby_vision_is_said(tmp_path: Path, profile: int, said: str) -> None:
    path = write_video(tmp_path / "a.mp4", [moving_square(i) for i in range(3)])
    data = bytearray(path.read_bytes())
    at = data.index(b"btrt")  # a box of the sample description, of the same length or longer
    data[at : at + 7] = b"dvvC" + bytes([1, 0, profile << 1])
    notes = read_photo(path, bytes(data))[1]
    assert len(notes) == 1 and said in notes[0]
