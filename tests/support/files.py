"""Small `.sglat` files made on the fly with a random bundle."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import numpy as np

from sglat.bitstream.constants import FIRST_VERSION, UPPER_VERSION
from sglat.bitstream.records import (
    AudioFormat,
    AudioPacket,
    DeltaLayer,
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
)
from sglat.bitstream.writer import Writer
from sglat.bundles.bundle import Bundle

MOTION_STEPS = np.concatenate([[0.5, 0.5], np.full(32, 0.1)]).astype(np.float32)
PLACEMENT_STEPS = np.array([0.25, 0.25, 0.25, 0.125], np.float32)


def make_identity(bundle: Bundle, *, seed: int = 0, yaw_degrees: float = 3.0) -> Identity:
    """Return a random identity with a latent and one layer of weight deltas."""
    random = np.random.default_rng(seed)
    shape = (bundle.num_ws, bundle.style_dim)
    latent = QuantizedTensor(values=random.integers(-40, 40, shape).astype(np.int32), step=0.03125)
    neutral = np.zeros(34, np.float32)
    neutral[0] = yaw_degrees
    weight = bundle.generator.layers[0].weight
    outputs, columns = weight.shape[0], weight[0].numel()
    deltas = (
        GainDelta(
            name="layers.0.weight",
            shape=tuple(weight.shape),
            gains=QuantizedTensor(
                values=random.integers(-3, 4, outputs).astype(np.int32), step=0.0625
            ),
        ),
        LowRankDelta(
            name="layers.0.weight",
            shape=tuple(weight.shape),
            left=QuantizedTensor(
                values=random.integers(-5, 6, (outputs, 1)).astype(np.int32), step=0.125
            ),
            right=QuantizedTensor(
                values=random.integers(-5, 6, (1, columns)).astype(np.int32), step=0.125
            ),
        ),
    )
    return Identity(
        layers=(LatentLayer(latent=latent), DeltaLayer(deltas=deltas)), neutral=neutral, id_frame=0
    )


def write_file(
    path: Path,
    bundle: Bundle,
    *,
    frames: int = 20,
    most_motion: int = 2,
    seed: int = 0,
    identity: Identity | None = None,
    neutral: np.ndarray | None = None,
    pts: list[int] | None = None,
    time_base: Fraction = Fraction(1, 25),
    plate: Picture | None = None,
    source_size: tuple[int, int] | None = (64, 48),
    audio: tuple[AudioFormat, list[AudioPacket]] | None = None,
    consent: str = "",
    source_sha256: bytes = b"",
    provenance_extra: Mapping[str, object] | None = None,
    group_frames: int = 8,
    is_interleaved: bool = False,
) -> Path:
    """Write a file with random motion of `most_motion` steps a frame at most; placement wanders
    about the middle of the frame.

    With `is_interleaved` each group has its audio before it; else all audio comes first.
    """
    random = np.random.default_rng(seed)
    header = Header(
        decoder_id=bundle.decoder_id,
        bundle=bundle.name,
        resolution=bundle.resolution,
        num_ws=bundle.num_ws,
        w_dim=bundle.style_dim,
        upper_id=bundle.upper_id,
        read_version=FIRST_VERSION if bundle.upper_id is None else UPPER_VERSION,
        motion_steps=MOTION_STEPS,
        time_base=time_base,
        frame_ticks=None if pts is not None else 1,
        frame_count=frames,
        source_size=source_size,
        placement_steps=None if source_size is None else PLACEMENT_STEPS,
        encoder="sglat test",
    )
    changes = random.integers(-most_motion, most_motion + 1, (frames, 34))
    motion = np.cumsum(changes, axis=0).astype(np.int32)
    with path.open("wb") as file:
        writer = Writer(file, header, group_frames=group_frames)
        writer.put_identity(identity or make_identity(bundle, seed=seed))
        if neutral is not None:
            writer.put_motion_neutral(neutral)
        if plate is not None:
            writer.put_plate(plate)
        writer.put_provenance(
            Provenance(
                generated_by="sglat test",
                consent=consent,
                source_sha256=source_sha256,
                extra=dict(provenance_extra or {}),
            )
        )
        if audio is not None:
            writer.put_audio_format(audio[0])
            if not is_interleaved:
                writer.put_audio(audio[1])
        values = None
        if source_size is not None:
            middle = np.array([source_size[0] / 2, source_size[1] / 2, source_size[1] * 0.6, 4.0])
            wander = np.cumsum(random.integers(-1, 2, (frames, 4)), axis=0)
            values = (np.round(middle / PLACEMENT_STEPS) + wander).astype(np.int32)
        for first in range(0, frames, group_frames):
            span = slice(first, first + group_frames)
            if audio is not None and is_interleaved:
                ends = min(first + group_frames, frames) * time_base
                begins = first * time_base if first else Fraction(-1)
                base = audio[0].time_base
                packets = [p for p in audio[1] if begins <= p.dts * base < ends]
                writer.put_audio(packets)
            writer.put_motion(
                Motion(
                    values=motion[span],
                    steps=MOTION_STEPS,
                    pts=None if pts is None else np.array(pts[span], np.int64),
                ),
                None if values is None else Placement(values=values[span], steps=PLACEMENT_STEPS),
            )
        writer.close()
    return path
