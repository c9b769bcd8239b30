"""The state of a causal encoder between two frames, to be stored and restored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sglat.encoder.causal import CausalEncoder
from sglat.encoder.registration import NO_STEP, RegisteredRow
from sglat.networks.faces import FaceLandmarks


def state_of(encoder: CausalEncoder) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return what `restore` needs between two frames: arrays, and facts in JSON."""
    follower, register, solver = encoder.follower, encoder.registration, encoder.solver
    arrays: dict[str, NDArray[Any]] = {
        "summed": encoder.summed, "placement": encoder.placement, "motion": encoder.motion,
        "losses": np.array(solver.losses), "blinks": np.array([b for _, b in encoder.latest]),
    }  # fmt: skip
    if encoder.latest:
        arrays["latest"] = np.stack([points for points, _ in encoder.latest])
    if follower.thumbnail is not None:
        arrays["thumbnail"] = follower.thumbnail
    if follower.last is not None:
        last = follower.last
        arrays |= {"last_points": last.points, "last_shapes": last.blendshapes}
        arrays["last"] = np.array([
            last.yaw_degrees, last.pitch_degrees, last.roll_degrees, *last.eye_openness,
            last.score,
        ])  # fmt: skip
    if encoder.drift is not None and encoder.before is not None:
        row, framed = encoder.before
        arrays |= {"drift": encoder.drift, "framed": framed, "row": row.placement}
    if encoder.key_crop is not None and register.previous is not None:
        arrays |= {"key": encoder.key_crop, "previous": register.previous[1]}
    for number in (register.key_index, encoder.index):
        for name in ("pose", "points", "framed"):
            if number in (table := getattr(encoder.seen, name)):
                arrays[f"{name}{number}"] = table[number]
    if solver.last is not None:
        arrays["solved"] = torch.stack(solver.last).cpu().numpy()
    if solver.shifts:
        arrays["shifts"] = torch.stack(tuple(solver.shifts)).cpu().numpy()
    facts = {
        "index": encoder.index, "key_index": register.key_index, "doubts": encoder.doubts,
        "likeness": encoder.likeness, "is_lost": follower.is_lost, "face": follower.config.face,
        "size": [encoder.seen.width, encoder.seen.height],
        "is_registered": bool(encoder.before and encoder.before[0].is_registered),
        "held": encoder.seen.held.get(encoder.index, False),
        "leaving": {str(n): bool(v) for n, v in encoder.seen.leaving.items()},
    }  # fmt: skip
    return arrays, facts


def restore(
    encoder: CausalEncoder, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]
) -> None:
    """Continue behind the frame after which `state_of` was called."""
    follower, register, solver, seen = (
        encoder.follower, encoder.registration, encoder.solver, encoder.seen,
    )  # fmt: skip
    encoder.index, register.key_index = facts["index"], facts["key_index"]
    encoder.doubts, encoder.likeness = facts["doubts"], facts["likeness"]
    follower.is_lost = facts["is_lost"]
    follower.config = replace(follower.config, face=facts["face"])
    seen.width, seen.height = facts["size"]
    seen.held[encoder.index] = facts["held"]
    seen.leaving.update({int(n): v for n, v in facts["leaving"].items()})
    encoder.summed, encoder.placement = arrays["summed"], arrays["placement"]
    encoder.motion = arrays["motion"]
    encoder.latest.extend(zip(arrays.get("latest", ()), arrays["blinks"].tolist(), strict=True))
    follower.thumbnail = arrays.get("thumbnail")
    if "last" in arrays:
        yaw, pitch, roll, left, right, score = arrays["last"].tolist()
        follower.last = FaceLandmarks(
            points=arrays["last_points"], yaw_degrees=yaw, pitch_degrees=pitch,
            roll_degrees=roll, eye_openness=(left, right), blendshapes=arrays["last_shapes"],
            score=score,
        )  # fmt: skip
    for number in (register.key_index, encoder.index):
        for name in ("pose", "points", "framed"):
            if (key := f"{name}{number}") in arrays:
                getattr(seen, name)[number] = arrays[key]
    if "key" in arrays:
        encoder.key_crop = arrays["key"]
        register.begin(register.key_index, encoder.key_crop)
        register.previous = encoder.index, arrays["previous"]
    if "drift" in arrays:
        row = RegisteredRow(
            placement=arrays["row"], key_frame=register.key_index,
            is_registered=facts["is_registered"], step=NO_STEP,
        )  # fmt: skip
        encoder.before, encoder.drift = (row, arrays["framed"]), arrays["drift"]
    device = encoder.bundle.device
    if "solved" in arrays:
        motion, estimate = torch.from_numpy(arrays["solved"]).to(device)
        solver.last = motion, estimate
    solver.shifts.extend(torch.from_numpy(arrays.get("shifts", np.zeros((0, 34), np.float32))))
    solver.losses.extend(arrays["losses"].tolist())
