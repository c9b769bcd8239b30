"""The HEAD chunk (SPEC.md section 4)."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final

import numpy as np

from sglat.bitstream.constants import (
    MAX_FRAMES,
    MAX_NUM_WS,
    MAX_RESOLUTION,
    MAX_SETTINGS,
    MAX_TICKS,
    MAX_TIME_BASE,
    MAX_W_DIM,
    VERSION,
)
from sglat.bitstream.motion_coder import MotionModel, pack_model, unpack_model
from sglat.bitstream.records import MOTION_CHANNELS, PLACEMENT_CHANNELS, Float32, Header
from sglat.bitstream.values import Fields, pack_map, unpack_map
from sglat.errors import FormatError

VERSION_BYTES: Final = 4


def pack_steps(steps: Float32, channels: int) -> bytes:
    """Return f32 steps."""
    array = np.asarray(steps, dtype="<f4")
    if array.shape != (channels,) or not (np.isfinite(array) & (array > 0)).all():
        raise FormatError(
            "bad-step", f"expected {channels} positive finite steps, found {array.tolist()}"
        )
    return array.tobytes()


def _unpack_steps(data: bytes, offset: int | None) -> Float32:
    steps = np.frombuffer(data, dtype="<f4").astype(np.float32)
    if not (np.isfinite(steps) & (steps > 0)).all():
        raise FormatError(
            "bad-step", "expected positive finite steps, found another", offset=offset
        )
    return steps


def pack_header(header: Header) -> bytes:
    """Return the HEAD payload."""
    base = header.time_base
    values: dict[str, Any] = {
        "bundle": header.bundle,
        "decoder": header.decoder_id,
        "encoder": header.encoder,
        "rate": [base.numerator, base.denominator, header.frame_ticks or 0, header.start_ticks],
        "settings": dict(header.settings),
        "size": [header.resolution, header.num_ws, header.w_dim],
        "steps": pack_steps(header.motion_steps, MOTION_CHANNELS),
    }
    if header.upper_id is not None:
        values["upper"] = header.upper_id
    if header.frame_count is not None:
        values["frames"] = header.frame_count
    if header.model is not None:
        values["model"] = pack_model(header.model)
    if header.placement_steps is not None:
        values["placement"] = pack_steps(header.placement_steps, PLACEMENT_CHANNELS)
    if header.source_size is not None:
        values["source"] = list(header.source_size)
    for key in ("encoder", "settings"):
        if not values[key]:
            del values[key]
    values.update({key: value for key, value in header.extra.items() if key not in values})
    payload = bytes((*header.read_version, *header.read_version)) + pack_map(values)
    unpack_header(payload)  # one set of checks for both directions
    return payload


def unpack_header(payload: bytes, *, offset: int | None = None) -> Header:
    """Read the HEAD payload."""
    if len(payload) < VERSION_BYTES:
        raise FormatError(
            "bad-field",
            f"expected {VERSION_BYTES} version bytes, found {len(payload)}",
            offset=offset,
        )
    needed = (payload[2], payload[3])
    if needed > VERSION:
        raise FormatError(
            "unsupported-version",
            f"expected a file for readers up to {VERSION[0]}.{VERSION[1]}, "
            f"found one for {needed[0]}.{needed[1]}",
            offset=offset,
        )
    fields = Fields(unpack_map(payload[VERSION_BYTES:], offset=offset), "HEAD", offset=offset)
    rate = fields.integers(
        "rate",
        [(1, MAX_TIME_BASE), (1, MAX_TIME_BASE), (0, MAX_TIME_BASE), (-MAX_TICKS, MAX_TICKS)],
    )
    size = fields.integers("size", [(1, MAX_RESOLUTION), (1, MAX_NUM_WS), (1, MAX_W_DIM)])
    source = None
    if "source" in fields:
        source = fields.integers("source", [(1, MAX_RESOLUTION), (1, MAX_RESOLUTION)])
    placement = fields.data("placement", 4 * PLACEMENT_CHANNELS, is_required=False)
    model = fields.data("model", None, is_required=False)
    frames = fields.integer("frames", 0, MAX_FRAMES) if "frames" in fields else None
    return Header(
        decoder_id=fields.data("decoder", 32),
        bundle=fields.text("bundle", 64, min_bytes=1),
        read_version=needed,
        resolution=size[0],
        num_ws=size[1],
        w_dim=size[2],
        upper_id=fields.data("upper", 32, is_required=False) or None,
        motion_steps=_unpack_steps(fields.data("steps", 4 * MOTION_CHANNELS), offset),
        time_base=Fraction(rate[0], rate[1]),
        frame_ticks=rate[2] or None,
        start_ticks=rate[3],
        frame_count=frames,
        source_size=None if source is None else (source[0], source[1]),
        placement_steps=_unpack_steps(placement, offset) if placement else None,
        model=_unpack_model(model, offset) if "model" in fields else None,
        encoder=fields.text("encoder", 64, is_required=False),
        settings=fields.texts("settings", MAX_SETTINGS, 256),
        extra=fields.rest(),
    )


def _unpack_model(data: bytes, offset: int | None) -> MotionModel:
    try:
        return unpack_model(data, MOTION_CHANNELS)
    except FormatError as error:
        raise FormatError("bad-model", error.message, offset=offset) from error
