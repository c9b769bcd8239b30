"""Files for the embedded bundle with made-up looks: all kinds of weight deltas, random motion."""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import numpy as np

from sglat.bitstream.constants import UPPER_VERSION
from sglat.bitstream.records import (
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
    WeightDelta,
)
from sglat.bitstream.writer import Writer
from sglat.bundles.bundle import Bundle

STEPS = np.array([0.5, 0.5, *[0.25] * 32], np.float32)


def random_motion(rng: np.random.Generator, frames: int, *, peak: int = 20) -> Motion:
    """Return a random walk with a still frame in it, `[frames, 34]`."""
    walk = rng.integers(-3, 4, (frames, 34)).cumsum(axis=0).clip(-peak, peak)
    if frames > 2:
        walk[2] = walk[1]
    return Motion(values=walk.astype(np.int32), steps=STEPS)


def look_file(
    bundle: Bundle,
    *,
    seed: int = 0,
    frames: int = 6,
    resolution: int = 512,
    is_detached_rung: bool = False,
    deltas: tuple[WeightDelta, ...] | None = None,
    provenance: Provenance | None = None,
    plate: Picture | None = None,
    placement: Placement | None = None,
    **changes: Any,
) -> bytes:
    """Return a file of the embedded bundle.

    Args:
        bundle: any rung.
        seed: of look and motion.
        frames: in groups of four.
        resolution: of the file.
        is_detached_rung: leave out the deltas of the last resolution.
        deltas: in place of the made-up ones.
        provenance: in place of a short one.
        plate: background, with `source_size` among the changes.
        placement: of every frame, with `placement_steps` among the changes.
        changes: of the header.
    """
    rng = np.random.default_rng(seed)
    at = bundle.at(resolution)
    values: dict[str, Any] = {
        "decoder_id": at.decoder_id, "upper_id": at.upper_id, "bundle": at.name,
        "resolution": resolution, "num_ws": at.num_ws, "w_dim": at.style_dim,
        "motion_steps": STEPS, "time_base": Fraction(1, 25), "frame_ticks": 1,
        "read_version": UPPER_VERSION, "encoder": "sglat test",
    }  # fmt: skip
    out = io.BytesIO()
    writer = Writer(out, Header(**(values | changes)), group_frames=4)
    latent = QuantizedTensor(
        values=rng.integers(-6, 7, (at.num_ws, at.style_dim)).astype(np.int32), step=0.05
    )
    made = _deltas(rng, at, resolution, is_detached_rung) if deltas is None else deltas
    layers = [LatentLayer(latent=latent), LatentLayer(latent=latent)]
    layers += [DeltaLayer(deltas=made)] if made else []  # type: ignore[list-item]
    neutral = rng.normal(0, 1, 34).astype(np.float16).astype(np.float32)
    writer.put_identity(Identity(layers=tuple(layers), neutral=neutral, id_frame=1))
    short = Provenance(generated_by="sglat test", consent="made up")
    writer.put_provenance(provenance or short)
    if plate is not None:
        writer.put_plate(plate)
    writer.put_motion(random_motion(rng, frames), placement)
    writer.close()
    return out.getvalue()


def _integers(rng: np.random.Generator, *shape: int, step: float) -> QuantizedTensor:
    return QuantizedTensor(values=rng.integers(-4, 5, shape).astype(np.int32), step=step)


def _deltas(
    rng: np.random.Generator, bundle: Bundle, resolution: int, is_detached: bool
) -> tuple[WeightDelta, ...]:
    """Return one delta of each kind, and one in the layers of each upper resolution."""
    tensors = dict(bundle.generator.named_parameters())

    def shape(name: str) -> tuple[int, ...]:
        return tuple(tensors[name].shape)

    conv, low = "layers.12.weight", "layers.14.affine.weight"
    size = tensors["layers.9.bias"].numel()
    found: list[WeightDelta] = [
        SpectralDelta(
            name=conv,
            shape=shape(conv),  # type: ignore[arg-type]
            left=_integers(rng, shape(conv)[0], 3, step=0.02),
            right=rng.integers(-4, 5, (9, 3, shape(conv)[1])).astype(np.int32),
            base_step=0.02,
            sixteenths=np.arange(16, 16 + 9, dtype=np.int32),
        ),
        LowRankDelta(
            name=low,
            shape=shape(low),
            left=_integers(rng, shape(low)[0], 2, step=0.05),
            right=_integers(rng, 2, shape(low)[1], step=0.05),
        ),
        GainDelta(
            name="layers.5.weight",
            shape=shape("layers.5.weight"),
            gains=_integers(rng, shape("layers.5.weight")[0], step=0.01),
        ),
        DenseDelta(name="layers.16.bias", values=_integers(rng, 3, step=0.02)),
        SparseDelta(
            name="layers.9.bias",
            shape=(size,),
            indices=np.sort(rng.choice(size, 20, replace=False)).astype(np.int64),
            values=_integers(rng, 20, step=0.02),
        ),
        GainDelta(
            name="mapping.layers.0.bias",  # moves no picture, and is legal
            shape=shape("mapping.layers.0.bias"),
            gains=_integers(rng, shape("mapping.layers.0.bias")[0], step=0.01),
        ),
    ]
    upper = {256: "layers.19.bias", 512: "layers.22.bias"}
    for rung, name in upper.items():
        if rung <= resolution and not (is_detached and rung == resolution):
            found.append(DenseDelta(name=name, values=_integers(rng, 3, step=0.02)))
    return tuple(found)
