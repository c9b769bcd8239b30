"""The contents of a file as plain records, which readers return and writers take."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sglat.bitstream.constants import FIRST_VERSION

if TYPE_CHECKING:
    from sglat.bitstream.motion_coder import MotionModel

Int32: TypeAlias = NDArray[np.int32]
Int64: TypeAlias = NDArray[np.int64]
UInt8: TypeAlias = NDArray[np.uint8]
Float32: TypeAlias = NDArray[np.float32]

MOTION_CHANNELS: Final = 34  # yaw, pitch and the 32 controls of the method
FIRST_CONTROL: Final = 2
PLACEMENT_CHANNELS: Final = 4  # centre x, centre y, size, roll

FRAME_HELD: Final = 1  # no face was found: the values repeat the frame before
FRAME_CUT: Final = 2  # the source cuts here: do not smooth across


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a decoder must know before the first motion group."""

    decoder_id: bytes
    """sha256 over generator, pose flow and controls, 32 bytes."""
    bundle: str
    """Name of the bundle, for messages; the decoder id decides."""
    resolution: int
    """Side of the generated picture in pixels."""
    num_ws: int
    """Rows of the latent."""
    w_dim: int
    """Width of one latent row."""
    motion_steps: Float32
    """Quantizer step of each motion channel, `[34]`, all positive."""
    time_base: Fraction
    """Seconds per tick."""
    frame_ticks: int | None
    """Ticks per frame at a constant rate; None: each group stores its time stamps."""
    upper_id: bytes | None = None
    """sha256 over the generator's layers above its base resolution, 32 bytes; None: not needed."""
    start_ticks: int = 0
    """Time stamp of frame 0 at a constant rate."""
    frame_count: int | None = None
    """Frames in the file; None while unknown (live)."""
    source_size: tuple[int, int] | None = None
    """Width and height of the full frame that placement refers to."""
    placement_steps: Float32 | None = None
    """Quantizer step of each placement channel, `[4]`: pixels, pixels, pixels, degrees."""
    encoder: str = ""
    """Name and version of the program that wrote the file."""
    settings: dict[str, str] = field(default_factory=dict)
    """Creation settings, for people."""
    read_version: tuple[int, int] = FIRST_VERSION
    """Least version of the format that a reader must know."""
    model: MotionModel | None = None
    """What motion groups start from (`motion_coder.fit_model`); None: the default model."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Fields of later versions, kept as they are."""


@dataclass(frozen=True, kw_only=True)
class Motion:
    """A run of consecutive frames."""

    values: Int32
    """Quantized yaw, pitch and controls in the order of the bundle's Controls, `[T, 34]`."""
    steps: Float32
    """Quantizer steps, `[34]`: value = integer · step."""
    first_frame: int = 0
    pts: Int64 | None = None
    """Time stamps in ticks, strictly rising, `[T]`; None at a constant rate."""
    flags: UInt8 | None = None
    """Bits `FRAME_HELD`, `FRAME_CUT` per frame, `[T]`; None: all zero."""

    def stamps(self, header: Header) -> Int64:
        """Return the time stamps in ticks, `[T]`."""
        if self.pts is not None:
            return self.pts
        frames = self.first_frame + np.arange(len(self.values), dtype=np.int64)
        return header.start_ticks + frames * (header.frame_ticks or 0)

    def dequantize(self) -> Float32:
        """Return yaw, pitch (degrees) and the controls, `[T, 34]`; exact on every machine."""
        return self.values.astype(np.float32) * self.steps


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where the aligned crop sits in the full frame, for a run of consecutive frames."""

    values: Int32
    """Quantized centre x, centre y, size (pixels) and roll (degrees), `[T, 4]`."""
    steps: Float32
    """Quantizer steps, `[4]`."""
    first_frame: int = 0

    def dequantize(self) -> Float32:
        """Return centre x, centre y, size in pixels and roll in degrees, `[T, 4]`."""
        return self.values.astype(np.float32) * self.steps


@dataclass(frozen=True, kw_only=True)
class QuantizedTensor:
    """Integers with one step."""

    values: Int32
    """Any shape of up to four axes."""
    step: float
    """Positive, stored as float32."""

    def dequantize(self) -> Float32:
        """Return values · step in the shape of `values`."""
        return self.values.astype(np.float32) * np.float32(self.step)


@dataclass(frozen=True, kw_only=True)
class LatentLayer:
    """A latent relative to the generator's mean latent; several latent layers add up."""

    latent: QuantizedTensor
    """`[num_ws, w_dim]`."""


@dataclass(frozen=True, kw_only=True)
class LowRankDelta:
    """weight += reshape(left @ right, shape)."""

    name: str
    shape: tuple[int, ...]
    left: QuantizedTensor
    """`[shape[0], rank]`."""
    right: QuantizedTensor
    """`[rank, product of shape[1:]]`."""


def cosines(size: int) -> NDArray[np.float64]:
    """Return the orthonormal discrete cosine transform (DCT-II), frequencies by places.

    Source: Ahmed, Natarajan and Rao 1974, https://doi.org/10.1109/T-C.1974.223784.
    """
    frequency, place = np.arange(size)[:, None], np.arange(size)[None]
    waves = np.cos(np.pi * frequency * (2 * place + 1) / (2 * size))
    scale = np.where(frequency == 0, 1.0, 2.0) / size
    result: NDArray[np.float64] = waves * np.sqrt(scale)
    return result


def filter_waves(height: int, width: int) -> NDArray[np.float32]:
    """Return the transform of filters, `[height · width, height · width]`: frequencies by places,
    vertical first."""
    return np.kron(cosines(height), cosines(width)).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class SpectralDelta:
    """weight += reshape(left @ right, shape), the filters of right given by their cosine transform.

    Tuned filters are smooth, and a picture shows an error of their mean some forty times as well
    as one of their finest detail, so each frequency has its own step.
    """

    name: str
    shape: tuple[int, int, int, int]
    """Outputs, inputs, height and width of the filters."""
    left: QuantizedTensor
    """`[outputs, rank]`."""
    right: Int32
    """Coefficients, vertical frequency first, `[height · width, rank, inputs]`."""
    base_step: float
    """Positive, stored as float32."""
    sixteenths: Int32
    """Step of each frequency in sixteenths of the base step, 1 to 16383, `[height · width]`."""

    def right_steps(self) -> Float32:
        """Return the step of each frequency, `[height · width]`."""
        return np.float32(self.base_step) * self.sixteenths.astype(np.float32) / np.float32(16)

    def dequantize(self) -> tuple[Float32, Float32]:
        """Return left `[outputs, rank]` and right `[rank, inputs · height · width]`, which
        multiply to the change of the weight."""
        spectrum = self.right.astype(np.float32) * self.right_steps()[:, None, None]
        right = np.einsum("fri,ft->rit", spectrum, filter_waves(*self.shape[2:]))
        return self.left.dequantize(), right.reshape(len(right), -1).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class GainDelta:
    """weight *= 1 + gain, one gain for each index of the first axis."""

    name: str
    shape: tuple[int, ...]
    gains: QuantizedTensor
    """`[shape[0]]`."""


@dataclass(frozen=True, kw_only=True)
class DenseDelta:
    """weight += values."""

    name: str
    values: QuantizedTensor
    """In the shape of the weight."""


@dataclass(frozen=True, kw_only=True)
class SparseDelta:
    """weight.flat[indices] += values."""

    name: str
    shape: tuple[int, ...]
    indices: Int64
    """Strictly rising positions in the flattened weight, `[n]`."""
    values: QuantizedTensor
    """`[n]`."""


WeightDelta: TypeAlias = LowRankDelta | SpectralDelta | GainDelta | DenseDelta | SparseDelta


def weight_resolution(name: str) -> int:
    """Return the resolution in pixels of the generator layer that a weight belongs to.

    Layers 0 and 1 render 4 px; three each double that (SPEC.md section 6.4). Other weights count
    as 4 px.
    """
    place = re.match(r"layers\.(\d{1,3})\.", name)
    return 4 if place is None else 4 << ((int(place[1]) + 1) // 3)


@dataclass(frozen=True, kw_only=True)
class DeltaLayer:
    """Weight deltas that are kept or dropped together, applied in order."""

    deltas: tuple[WeightDelta, ...]


@dataclass(frozen=True, kw_only=True)
class Identity:
    """One person's look, in layers; any prefix of at least one layer decodes."""

    layers: tuple[LatentLayer | DeltaLayer, ...]
    """Layer 0 is a `LatentLayer`; the rest in falling benefit per byte."""
    neutral: Float32
    """The ID frame's own yaw, pitch and controls, `[34]`, rounded to float16 in the file.

    Puppeteering measures the driver's motion against the driver's neutral and adds it to this one.
    """
    id_frame: int | None = None
    """Number of the ID frame in the source video."""

    def latent_offset(self) -> Float32:
        """Return the latent minus the generator's mean latent, `[num_ws, w_dim]`."""
        parts = [layer.latent for layer in self.layers if isinstance(layer, LatentLayer)]
        total = parts[0].dequantize()
        for part in parts[1:]:
            total = total + part.dequantize()
        return total

    def weight_deltas(self) -> tuple[WeightDelta, ...]:
        """Return all weight deltas in the order they are applied."""
        layers = (layer.deltas for layer in self.layers if isinstance(layer, DeltaLayer))
        return tuple(delta for deltas in layers for delta in deltas)


@dataclass(frozen=True, kw_only=True)
class AudioFormat:
    """What a muxer needs to open an audio stream like the source's."""

    codec: str
    """FFmpeg codec name: opus, aac, mp3, flac, pcm_s16le, …"""
    time_base: Fraction
    sample_rate: int
    channels: int
    layout: str = ""
    extradata: bytes = b""
    frame_size: int = 0
    """Samples per packet, 0 when variable or unknown."""


@dataclass(frozen=True, kw_only=True)
class AudioPacket:
    """One compressed packet, bit for bit."""

    data: bytes
    pts: int
    """In ticks of the audio time base."""
    dts: int
    duration: int
    """0 when unknown."""
    is_key_frame: bool = True


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A still picture: the background plate or the thumbnail."""

    media_type: str
    """`image/png`, `image/jpeg`, `image/webp`, …"""
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Who made this, from what, and with whose consent."""

    generated_by: str
    """Program and version; its presence marks the decoded video as synthetic."""
    consent: str = ""
    """Statement of the pictured person's consent, free text; swap shows and keeps it."""
    source_sha256: bytes = b""
    """Hash of the source video, 32 bytes or empty."""
    note: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further fields, kept as they are: signature, records of origin and marks of the source
    (SPEC.md section 10.1, `sglat.bitstream.origins`, `sglat.marks.provenance`)."""


@dataclass(frozen=True, kw_only=True)
class IdentityReference:
    """The identity lives in another file."""

    sha256: bytes
    """The identity hash of SPEC.md section 6, 32 bytes."""
    hint: str = ""
    """File name or address that may help to find it; never followed by itself."""


@dataclass(frozen=True, kw_only=True)
class IndexEntry:
    """Where one motion group lies."""

    first_frame: int
    frame_count: int
    offset: int
    """Position of the group's chunk in the file in bytes."""
    first_pts: int
    """Time stamp of the group's first frame in ticks."""
