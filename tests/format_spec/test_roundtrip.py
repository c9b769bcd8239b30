"""What the codec writes, the reference decoder reads: random files of every shape."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sglat.bitstream.constants import MAX_VALUE
from sglat.bitstream.motion_coder import MotionModel
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
    Placement,
    QuantizedTensor,
    SparseDelta,
    SpectralDelta,
)
from sglat.bitstream.writer import Writer
from tests.format_spec.support import codec_facts, reference, reference_facts

SEEDS = st.integers(0, 2**32 - 1)


def integers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Return integers of any character: zeros, small, heavy-tailed, extreme."""
    kind = rng.integers(4)
    if kind == 0:
        return np.zeros(shape, np.int32)
    if kind == 1:
        return rng.integers(-2, 3, shape).astype(np.int32)
    if kind == 2:
        wild = np.rint(rng.standard_cauchy(shape) * 3)
        return np.clip(wild, -MAX_VALUE, MAX_VALUE).astype(np.int32)
    return rng.integers(-MAX_VALUE, MAX_VALUE + 1, shape).astype(np.int32)


def motion_model(rng: np.random.Generator) -> MotionModel:
    """Return any legal model."""
    refs = [255 if c == 0 or rng.random() < 0.5 else int(rng.integers(c)) for c in range(34)]
    return MotionModel(
        start=tuple(rng.integers(-100, 101, 34).tolist()),
        spread=tuple(rng.integers(0, 36, 34).tolist()),
        ref=tuple(refs),
        weight=tuple(0 if ref == 255 else int(rng.integers(-64, 65)) for ref in refs),
    )


def identity(rng: np.random.Generator, num_ws: int, w_dim: int) -> Identity:
    """Return layers of every kind."""

    def tensor(*shape: int) -> QuantizedTensor:
        step = float(np.float32(2.0 ** rng.integers(-20, 20)))
        return QuantizedTensor(values=integers(rng, *shape), step=step)

    indices = np.sort(rng.choice(60, size=int(rng.integers(1, 20)), replace=False)).astype(np.int64)
    makers = (
        lambda: LowRankDelta(name="a", shape=(6, 5, 2), left=tensor(6, 3), right=tensor(3, 10)),
        lambda: SpectralDelta(
            name="s",
            shape=(4, 5, 3, 2),
            left=tensor(4, 3),
            right=integers(rng, 6, 3, 5),
            base_step=0.125,
            sixteenths=rng.integers(1, 1 << 14, 6).astype(np.int32),
        ),
        lambda: GainDelta(name="b", shape=(7, 3), gains=tensor(7)),
        lambda: DenseDelta(name="ü.bias", values=tensor(int(rng.integers(1, 3000)))),
        lambda: SparseDelta(name="d", shape=(12, 5), indices=indices, values=tensor(len(indices))),
    )
    layers: list[Any] = [LatentLayer(latent=tensor(num_ws, w_dim))]
    for _ in range(int(rng.integers(0, 3))):
        if rng.random() < 0.3:
            layers.append(LatentLayer(latent=tensor(num_ws, w_dim)))
        else:
            chosen = rng.integers(0, len(makers), int(rng.integers(1, 4)))
            layers.append(DeltaLayer(deltas=tuple(makers[k]() for k in chosen)))
    neutral = rng.normal(size=34).astype(np.float16).astype(np.float32)
    return Identity(layers=tuple(layers), neutral=neutral)


def motion_values(rng: np.random.Generator, frames: int, channels: int) -> np.ndarray:
    """Return a walk with rests, sometimes with leaps over the whole range."""
    moves = rng.integers(-3, 4, (frames, channels)) * (rng.random((frames, 1)) < rng.random())
    values = np.cumsum(moves, axis=0)
    if rng.random() < 0.3:
        leap = rng.random((frames, channels)) < 0.05
        values = np.where(leap, integers(rng, frames, channels), values)
    return values.astype(np.int32)


def make_file(seed: int) -> tuple[bytes, dict[str, Any]]:
    """Return a file and what must be read from it."""
    rng = np.random.default_rng(seed)
    frames = int(rng.integers(0, 60))
    is_variable, is_placed = rng.random() < 0.5, rng.random() < 0.5
    num_ws, w_dim = int(rng.integers(1, 5)), int(rng.integers(1, 20))
    header = Header(
        decoder_id=rng.bytes(32),
        bundle="random",
        resolution=128,
        num_ws=num_ws,
        w_dim=w_dim,
        motion_steps=np.exp(rng.normal(size=34)).astype(np.float32),
        time_base=Fraction(1, 90000),
        frame_ticks=None if is_variable else 3003,
        start_ticks=0 if is_variable else int(rng.integers(-10000, 10000)),
        source_size=(640, 480) if is_placed else None,
        placement_steps=np.full(4, 0.5, np.float32) if is_placed else None,
        read_version=(1, 1),
        model=motion_model(rng) if rng.random() < 0.5 else None,
    )
    pts = np.cumsum(rng.integers(1, 10**6, frames)) - 10**6 if is_variable else None
    flags = rng.integers(0, 4, frames).astype(np.uint8) * (rng.random(frames) < 0.2)
    motion = Motion(
        values=motion_values(rng, frames, 34),
        steps=header.motion_steps,
        pts=pts,
        flags=flags.astype(np.uint8),
    )
    packets = [
        AudioPacket(data=rng.bytes(int(n)), pts=960 * i, dts=960 * i, duration=960)
        for i, n in enumerate(rng.integers(0, 40, int(rng.integers(1, 9))))
    ]
    out = io.BytesIO()
    writer = Writer(out, header, group_frames=int(rng.integers(1, 30)))
    person = identity(rng, num_ws, w_dim)
    writer.put_identity(person)
    audio = AudioFormat(codec="opus", time_base=Fraction(1, 48000), sample_rate=48000, channels=2)
    writer.put_audio_format(audio)
    writer.put_audio(packets)
    places = motion_values(rng, frames, 4)
    if frames:
        steps = header.placement_steps
        placement = None if steps is None else Placement(values=places, steps=steps)
        writer.put_motion(motion, placement)
    writer.close()
    times = motion.pts.tolist() if motion.pts is not None else None
    ticks = [header.start_ticks + 3003 * n for n in range(frames)]
    return out.getvalue(), {
        "frames": frames,
        "motion": motion.values.tolist(),
        "times": ticks if times is None else times,
        "flags": flags.tolist(),
        "packets": [packet.data for packet in packets],
        "places": places.tolist() if is_placed and frames else [],
    }


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(SEEDS)
def test_reference_reads_what_the_codec_writes(seed: int) -> None:
    data, expected = make_file(seed)
    found = reference_facts(data)
    places = [row for place in found["placement"] for row in place or []]
    assert places == expected.pop("places")
    assert {key: found[key] for key in expected} == expected
    assert found == codec_facts(data) == codec_facts(data, is_batch=True)


def test_weight_changes_are_those_of_the_reference_decoder() -> None:
    rng = np.random.default_rng(5)
    delta = SpectralDelta(
        name="w", shape=(4, 5, 3, 2), left=QuantizedTensor(values=integers(rng, 4, 3), step=0.5),
        right=rng.integers(-9, 10, (6, 3, 5)).astype(np.int32), base_step=0.0371,
        sixteenths=rng.integers(1, 999, 6).astype(np.int32),
    )  # fmt: skip
    header = Header(
        decoder_id=bytes(32), bundle="random", resolution=128, num_ws=1, w_dim=1,
        motion_steps=np.ones(34, np.float32), time_base=Fraction(1, 25), frame_ticks=1,
        read_version=(1, 1),
    )  # fmt: skip
    latent = LatentLayer(latent=QuantizedTensor(values=np.ones((1, 1), np.int32), step=1.0))
    person = Identity(
        layers=(latent, DeltaLayer(deltas=(delta,))), neutral=np.zeros(34, np.float32)
    )
    out = io.BytesIO()
    writer = Writer(out, header)
    writer.put_identity(person)
    writer.close()
    entry = reference.decode(out.getvalue()).layers[1][0]
    left, right = delta.dequantize()
    wanted = reference.weight_change(entry)
    found = (left.astype(np.float64) @ right.astype(np.float64)).reshape(4, 5, 3, 2)
    assert np.abs(wanted).max() > 0.01
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())
