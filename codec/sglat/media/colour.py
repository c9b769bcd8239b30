"""Colour in: HDR transfer curves and wide primaries to bt709 SDR, by the flags of the stream.

HLG and PQ samples become display light in cd/m2, which a tone curve brings to SDR; the result is
encoded for a bt709 display. All curves are tables or closed formulas:

1. HLG: inverse OETF, then the OOTF of a 1000 cd/m2 display, gamma 1.2. PQ: EOTF.
2. Scale by f(m) / m, where m is the largest of R, G and B: hue and saturation stay. f is the EETF
   of BT.2390 from the source's peak to reference white. It is the identity up to 90 cd/m2 for a
   peak of 1000, so skin and mid-tones are reproduced exactly, and highlights roll off.
3. Divide by reference white, 203 cd/m2; matrix from bt2020 or P3 primaries to bt709; clip.
4. Encode by the inverse of the bt709 display curve, a power of 1 / 2.4.

SDR samples with bt2020 or P3 primaries take steps 3 and 4 with white at 1.

Source: ITU-R BT.2100-2 tables 4 and 5 (PQ, HLG); BT.2390-8 section 5.4.1 (EETF); BT.2408-4 section
2.1 (reference white); BT.1886 (display curve); BT.2087 (matrix).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

# Code points of ITU-T H.273
PQ: Final = 16
HLG: Final = 18
BT709_PRIMARIES: Final = 1
BT2020_PRIMARIES: Final = 9
P3_PRIMARIES: Final = (11, 12)  # DCI-P3 and Display P3; both are taken with a D65 white
BT2020_NCL: Final = 9
UNSPECIFIED: Final = 2

WHITE_NITS: Final = 203.0  # reference white of BT.2408: 58 % PQ, 75 % HLG
HLG_PEAK_NITS: Final = 1000.0  # nominal display of BT.2100
HLG_GAMMA: Final = 1.2  # OOTF of that display
PQ_PEAK_NITS: Final = 1000.0  # for a stream that does not state its peak; most are graded for it
PQ_MAX_NITS: Final = 10000.0
DISPLAY_GAMMA: Final = 2.4
HLG_A: Final = 0.17883277
HLG_B: Final = 1 - 4 * HLG_A
HLG_C: Final = 0.5 - HLG_A * np.log(4 * HLG_A)
PQ_M1, PQ_M2 = 2610 / 16384, 2523 / 4096 * 128
PQ_C1, PQ_C2, PQ_C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
CODES: Final = 1 << 16
BAND_ROWS: Final = 64  # rows converted together: bounds memory and stays in the cache

_WHITE_D65: Final = (0.3127, 0.3290)
_PRIMARIES: Final = {
    "bt709": ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    "bt2020": ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    "P3": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}


PROFILE_PRIMARIES: Final = {"bt709": 1, "P3": 12, "bt2020": 9}
PROFILE_COLUMNS: Final = (b"rXYZ", b"gXYZ", b"bXYZ")
PROFILE_TOLERANCE: Final = 0.01  # of XYZ; Adobe RGB lies 0.17 from bt709
_D65_TO_D50: Final = np.array(
    [[1.0479, 0.0229, -0.0502], [0.0296, 0.9904, -0.0171], [-0.0092, 0.0151, 0.7519]]
)


def hlg_to_scene(signal: Float64) -> Float64:
    """Return scene light in [0, 1] of HLG samples in [0, 1]."""
    low = np.square(signal) / 3
    high = (np.exp((signal - HLG_C) / HLG_A) + HLG_B) / 12
    return np.where(signal <= 0.5, low, high)


def pq_to_nits(signal: Float64) -> Float64:
    """Return display light in cd/m2 of PQ samples in [0, 1]."""
    root = np.power(signal, 1 / PQ_M2)
    ratio = np.maximum(root - PQ_C1, 0) / (PQ_C2 - PQ_C3 * root)
    return np.asarray(PQ_MAX_NITS * np.power(ratio, 1 / PQ_M1))


def nits_to_pq(nits: Float64) -> Float64:
    """Return PQ samples in [0, 1] of display light in cd/m2."""
    power = np.power(np.clip(nits / PQ_MAX_NITS, 0, 1), PQ_M1)
    return np.asarray(np.power((PQ_C1 + PQ_C2 * power) / (1 + PQ_C3 * power), PQ_M2))


def tone_curve(nits: Float64, *, peak_nits: float) -> Float64:
    """Return display light after the EETF of BT.2390, cd/m2.

    A Hermite spline in PQ samples maps `peak_nits`, the source's peak, to reference white; below
    its knee light is kept, and brighter light is clipped to the peak.
    """
    source_peak = nits_to_pq(np.array(peak_nits))
    sample = np.minimum(nits_to_pq(nits) / source_peak, 1)
    target = nits_to_pq(np.array(WHITE_NITS)) / source_peak
    knee = 1.5 * target - 0.5
    t = np.clip((sample - knee) / (1 - knee), 0, 1)
    spline = (
        (2 * t**3 - 3 * t**2 + 1) * knee
        + (t**3 - 2 * t**2 + t) * (1 - knee)
        + (-2 * t**3 + 3 * t**2) * target
    )
    return np.where(sample < knee, nits, pq_to_nits(spline * source_peak))


def primaries_matrix(source: str, target: str = "bt709") -> Float64:
    """Return the `[3, 3]` matrix from linear RGB of one set of primaries to another's."""
    return np.asarray(np.linalg.inv(_to_xyz(target)) @ _to_xyz(source))


def _to_xyz(name: str) -> Float64:
    columns = np.array([(x / y, 1, (1 - x - y) / y) for x, y in _PRIMARIES[name]]).T
    x, y = _WHITE_D65
    white = np.array([x / y, 1, (1 - x - y) / y])
    return np.asarray(columns * np.linalg.solve(columns, white))


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """From a stream's colours to bt709 SDR."""

    transfer: int
    """`PQ`, `HLG` or any other code point for SDR."""
    primaries: str
    """`bt2020` or `P3`."""
    peak_nits: float = HLG_PEAK_NITS
    """Of the source; not used for SDR."""

    @property
    def note(self) -> str:
        """One line: what the source was and what was done."""
        if self.transfer not in (PQ, HLG):
            return f"{self.primaries} colours converted to bt709"
        name = "PQ" if self.transfer == PQ else "HLG"
        return (
            f"HDR ({name}, {self.primaries}) converted to bt709 SDR: BT.2390 curve, "
            f"{self.peak_nits:.0f} to {WHITE_NITS:.0f} cd/m2"
        )

    def apply(
        self, samples: NDArray[np.uint16], *, full_scale: int = CODES - 1
    ) -> NDArray[np.uint8]:
        """Return 8-bit bt709 RGB of full-range 16-bit R'G'B' `[H, W, 3]` in the stream's own
        transfer and primaries; the sample `full_scale` stands for 1."""
        out = np.empty(samples.shape, np.uint8)
        for at in range(0, len(samples), BAND_ROWS):
            self._convert(samples[at : at + BAND_ROWS], full_scale, out[at : at + BAND_ROWS])
        return out

    def _convert(
        self, samples: NDArray[np.uint16], full_scale: int, out: NDArray[np.uint8]
    ) -> None:
        """Convert rows, plane by plane: three times as fast as `[N, 3]`, and powers by tables."""
        table = _linear_table(self.transfer, full_scale)
        red, green, blue = (table[samples[..., channel]] for channel in range(3))
        if self.transfer in (PQ, HLG):
            brightest = np.maximum(np.maximum(red, green), blue)
            ootf = np.ones_like(brightest)
            if self.transfer == HLG:
                weights = LUMINANCE_2020
                luminance = red * weights[0] + green * weights[1] + blue * weights[2]
                ootf = _by_root(_ootf_table(), luminance)
            gain = ootf * _by_root(_gain_table(self.peak_nits), brightest * ootf)
            for plane in (red, green, blue):
                plane *= gain
        for channel, row in enumerate(primaries_matrix(self.primaries).astype(np.float32)):
            light = red * row[0] + green * row[1] + blue * row[2]
            out[..., channel] = _by_root(_display_table(), light)


LUMINANCE_2020: Final = np.array([0.2627, 0.6780, 0.0593], np.float32)
# Light up to this is in the tables of gains: PQ reaches ten times the display of HLG.
TABLE_LIGHT: Final = PQ_MAX_NITS / HLG_PEAK_NITS


def _by_root(table: NDArray[Any], light: Float32) -> NDArray[Any]:
    """Look light up in a table over square roots, in which dark tones have their share."""
    scale = np.float32((CODES - 1) ** 2 / (1 if table.dtype == np.uint8 else TABLE_LIGHT))
    index = np.sqrt(np.clip(light * scale, 0, np.float32((CODES - 1) ** 2)))
    found: NDArray[Any] = table[(index + np.float32(0.5)).astype(np.uint16)]
    return found


def _roots(most: float) -> Float64:
    """Return the light of each entry of a table over square roots."""
    return np.asarray(most * np.square(np.arange(CODES) / (CODES - 1)))


@cache
def _linear_table(transfer: int, full_scale: int) -> Float32:
    """Return light of each 16-bit sample: 1 is 1000 cd/m2, for SDR reference white."""
    signal = np.minimum(np.arange(CODES) / full_scale, 1.0)
    if transfer == HLG:
        return hlg_to_scene(signal).astype(np.float32)
    if transfer == PQ:
        return (pq_to_nits(signal) / HLG_PEAK_NITS).astype(np.float32)
    return np.power(signal, DISPLAY_GAMMA).astype(np.float32)


@cache
def _ootf_table() -> Float32:
    """Return the OOTF's factor for each luminance of the scene."""
    return np.power(_roots(TABLE_LIGHT), HLG_GAMMA - 1).astype(np.float32)


@cache
def _gain_table(peak_nits: float) -> Float32:
    """Return the factor that makes light SDR, 1 being white, for the largest of R, G and B."""
    nits = np.maximum(_roots(TABLE_LIGHT) * HLG_PEAK_NITS, 1e-6)
    gain = tone_curve(nits, peak_nits=peak_nits) / nits * HLG_PEAK_NITS / WHITE_NITS
    return gain.astype(np.float32)


@cache
def _display_table() -> NDArray[np.uint8]:
    """Return the 8-bit sample of each light from 0 to 1."""
    return np.round(255 * np.power(_roots(1.0), 1 / DISPLAY_GAMMA)).astype(np.uint8)


def profile_primaries(profile: bytes) -> int | None:
    """Return the code point of H.273 for the primaries of an ICC profile; None for others.

    Only profiles of three primaries are known; curves are taken as bt709's. Gray ones count as
    bt709.

    Source: ICC.1:2022, sections 7.2, 7.3 and 10.31; Bradford adaptation to D50, annex E.
    """
    if profile[16:20] == b"GRAY":
        return BT709_PRIMARIES
    try:
        (count,) = struct.unpack_from(">I", profile, 128)
        entries = [
            struct.unpack_from(">4sII", profile, 132 + 12 * i) for i in range(min(count, 99))
        ]
        places = {name: at for name, at, _ in entries}
        found = np.array(
            [struct.unpack_from(">3i", profile, places[name] + 8) for name in PROFILE_COLUMNS]
        ).T / (1 << 16)
    except (struct.error, KeyError):
        return None
    for name, code in PROFILE_PRIMARIES.items():
        if np.abs(_D65_TO_D50 @ _to_xyz(name) - found).max() < PROFILE_TOLERANCE:
            return code
    return None


def find_conversion(
    transfer: int, primaries: int, *, peak_nits: float | None = None
) -> Conversion | None:
    """Return what brings a stream with code points of H.273 to bt709 SDR; None if it is that
    already, or unspecified.

    SD primaries are taken as bt709, as players do: the difference is below two levels on skin.
    Unspecified primaries of an HDR stream are bt2020. The peak, for PQ, is as the stream states it.
    """
    name = "P3" if primaries in P3_PRIMARIES else "bt2020"
    if transfer in (PQ, HLG):
        peak = HLG_PEAK_NITS if transfer == HLG else (peak_nits or PQ_PEAK_NITS)
        peak = min(max(peak, 2 * WHITE_NITS), PQ_MAX_NITS)
        return Conversion(transfer=transfer, primaries=name, peak_nits=peak)
    if primaries == BT2020_PRIMARIES or primaries in P3_PRIMARIES:
        return Conversion(transfer=transfer, primaries=name)
    return None
