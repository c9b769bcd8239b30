"""Small files and records for the tests of the format, built from a seed."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import numpy as np

from sglat.bitstream.records import (
    AudioFormat,
    AudioPacket,
    DeltaLayer,
    DenseDelta,
    GainDelta,
    Header,
    Identity,
    LatentLayer,
    LowRankDelta,
    Motion,
    Picture,
    Placement,
    Provenance,
    QuantizedTensor,
    SparseDelta,
    SpectralDelta,
)
from sglat.bitstream.writer import Writer

NUM_WS, W_DIM = 4, 8


def sample_header(*, is_variable: bool = False, frame_count: int | None = None) -> Header:
    """Return a header with placement."""
    return Header(
        decoder_id=bytes(range(32)),
        bundle="mini",
        resolution=128,
        num_ws=NUM_WS,
        w_dim=W_DIM,
        motion_steps=np.full(34, 0.25, dtype=np.float32),
        time_base=Fraction(1, 30000),
        frame_ticks=None if is_variable else 1001,
        frame_count=frame_count,
        source_size=(640, 480),
        placement_steps=np.array([0.5, 0.5, 0.5, 0.1], dtype=np.float32),
        encoder="sglat test",
        settings={"quality": "50"},
    )


def tensor(rng: np.random.Generator, *shape: int, peak: int = 3) -> QuantizedTensor:
    """Return random integers within ±peak."""
    values = rng.integers(-peak, peak + 1, shape).astype(np.int32)
    return QuantizedTensor(values=values, step=0.125)


def spectral(rng: np.random.Generator, **changes: Any) -> SpectralDelta:
    """Return a delta that readers of 1.0 do not know."""
    values = {
        "name": "conv.weight", "shape": (6, 4, 3, 3), "left": tensor(rng, 6, 2),
        "right": rng.integers(-3, 4, (9, 2, 4)).astype(np.int32), "base_step": 0.125,
        "sixteenths": np.array([16, 20, 40, 20, 80, 90, 40, 90, 700], np.int32),
    }  # fmt: skip
    return SpectralDelta(**(values | changes))


def sample_identity(rng: np.random.Generator) -> Identity:
    """Return an identity with all kinds of layers and deltas."""
    deltas = (
        LowRankDelta(
            name="conv1.weight",
            shape=(6, 4, 3, 3),
            left=tensor(rng, 6, 2),
            right=tensor(rng, 2, 36),
        ),
        GainDelta(name="conv2.weight", shape=(5, 4), gains=tensor(rng, 5)),
        DenseDelta(name="bias", values=tensor(rng, 3, 4, peak=40)),
        SparseDelta(
            name="conv3.weight",
            shape=(20, 10),
            indices=np.array([0, 7, 199]),
            values=tensor(rng, 3, peak=3000),
        ),
    )
    return Identity(
        layers=(
            LatentLayer(latent=tensor(rng, NUM_WS, W_DIM)),
            LatentLayer(latent=tensor(rng, NUM_WS, W_DIM)),
            DeltaLayer(deltas=deltas),
        ),
        neutral=rng.normal(size=34).astype(np.float16).astype(np.float32),
        id_frame=17,
    )


def walk(rng: np.random.Generator, frames: int, channels: int = 34) -> np.ndarray:
    """Return integers that move like a talking head: small steps, some of them, and rests."""
    moves = rng.integers(-2, 3, (frames, channels)) * (rng.random((frames, channels)) < 0.25)
    moves[rng.random(frames) < 0.2] = 0
    return np.cumsum(moves, axis=0).astype(np.int32)


def sample_motion(rng: np.random.Generator, header: Header, frames: int) -> Motion:
    """Return motion with flags, and with time stamps if the header wants them."""
    pts = np.cumsum(rng.integers(900, 1100, frames)) if header.frame_ticks is None else None
    flags = (rng.random(frames) < 0.05).astype(np.uint8) * 2
    return Motion(values=walk(rng, frames), steps=header.motion_steps, pts=pts, flags=flags)


def sample_placement(rng: np.random.Generator, header: Header, frames: int) -> Placement:
    """Return a slow drift in the middle of the frame."""
    assert header.placement_steps is not None
    values = walk(rng, frames, 4) + np.array([640, 480, 500, 0], dtype=np.int32)
    return Placement(values=values, steps=header.placement_steps)


AUDIO = AudioFormat(
    codec="opus",
    time_base=Fraction(1, 48000),
    sample_rate=48000,
    channels=1,
    layout="mono",
    extradata=b"OpusHead",
    frame_size=960,
)


def sample_packets(rng: np.random.Generator, first: int, count: int) -> list[AudioPacket]:
    """Return packets of 20 ms with different sizes."""
    sizes = rng.integers(1, 30, count).tolist()
    stamps = [960 * (first + n) for n in range(count)]
    return [
        AudioPacket(data=rng.bytes(size), pts=at, dts=at, duration=960)
        for size, at in zip(sizes, stamps, strict=True)
    ]


def sample_file(
    *,
    seed: int = 1,
    frames: int = 40,
    group_frames: int = 16,
    is_variable: bool = False,
    has_count: bool = True,
) -> bytes:
    """Return a whole file that uses every chunk of the format."""
    rng = np.random.default_rng(seed)
    header = sample_header(is_variable=is_variable, frame_count=frames if has_count else None)
    out = io.BytesIO()
    writer = Writer(out, header, group_frames=group_frames)
    writer.put_identity(sample_identity(rng))
    writer.put_motion_neutral(rng.normal(size=34).astype(np.float32))
    writer.put_provenance(Provenance(generated_by="sglat test", consent="yes, I agree"))
    writer.put_metadata({"title": "a test"})
    writer.put_plate(Picture(media_type="image/png", data=b"not really a picture"))
    writer.put_thumbnail(Picture(media_type="image/webp", data=b"nor this"))
    writer.put_audio_format(AUDIO)
    motion = sample_motion(rng, header, frames)
    placement = sample_placement(rng, header, frames)
    writer.put_audio(sample_packets(rng, 0, 5))
    writer.put_motion(motion, placement)
    writer.put_audio(sample_packets(rng, 5, 5))
    writer.close()
    return out.getvalue()


def tiny_file() -> bytes:
    """Return the file of SPEC.md section 16."""
    header = Header(
        decoder_id=bytes(range(32)),
        bundle="mini",
        resolution=128,
        num_ws=2,
        w_dim=4,
        motion_steps=np.full(34, 0.25, dtype=np.float32),
        time_base=Fraction(1, 25),
        frame_ticks=1,
        frame_count=3,
    )
    latent = np.array([[1, 0, -1, 2], [1, 0, -1, 2]], dtype=np.int32)
    layer = LatentLayer(latent=QuantizedTensor(values=latent, step=0.5))
    values = np.zeros((3, 34), dtype=np.int32)
    values[:, 0] = [4, 5, 5]
    values[:, 1] = -2
    out = io.BytesIO()
    writer = Writer(out, header)
    writer.put_identity(Identity(layers=(layer,), neutral=np.zeros(34, dtype=np.float32)))
    writer.put_motion(Motion(values=values, steps=header.motion_steps))
    writer.close()
    return out.getvalue()
