"""Damage and loss: what a reader notices, and what interpolation saves."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any, Final

import numpy as np

from sglat.bitstream.info import verify
from sglat.errors import SglatError
from sglat_lab.bench.file_variants import concealed, lost_groups, parse, with_motion
from sglat_lab.measure.rates import file_cost

LOSS_SHARES: Final = (0.0, 0.05, 0.1, 0.2, 0.3)


def corruption(path: Path, *, trials: int, seed: int = 0) -> dict[str, Any]:
    """Flip one bit, or cut the file, at random places, and count what the reader says.

    Args:
        path: a sound file.
        trials: of each kind.
        seed: of the places.

    Returns:
        Per kind: tried, refused with one of our errors, read as if sound, crashed with anything
        else, and the error codes.
    """
    data = path.read_bytes()
    random = np.random.default_rng(seed)
    kinds: dict[str, Any] = {}
    for kind in ("bit flips", "truncations"):
        counts: Counter[str] = Counter()
        codes: Counter[str] = Counter()
        for _ in range(trials):
            damaged = bytearray(data)
            if kind == "bit flips":
                damaged[random.integers(len(data))] ^= 1 << int(random.integers(8))
            else:
                del damaged[random.integers(len(data)) :]
            try:
                verify(io.BytesIO(bytes(damaged)))
                counts["unnoticed"] += 1
            except SglatError as error:
                counts["refused"] += 1
                codes[error.code] += 1
            except Exception as error:
                counts["crashed"] += 1
                codes[type(error).__name__] += 1
        kinds[kind] = {
            "tried": trials,
            **{name: counts[name] for name in ("refused", "unnoticed", "crashed")},
            "codes": dict(codes),
        }
    return kinds


def lossy_file(path: Path, out: Path, share: float, *, seed: int) -> dict[str, float]:
    """Write what a receiver shows when groups are lost and interpolated.

    Args:
        path: as sent.
        out: as shown.
        share: chance of each group of half a second to be lost.
        seed: of the losses.

    Returns:
        Share of frames lost, their number, and the root mean square error of the lost numbers in
        quantizer steps.
    """
    values = parse(path).motion.values
    random = np.random.default_rng(seed)
    is_lost = lost_groups(len(values), share, random)
    shown = concealed(values, is_lost)
    with_motion(path, out, shown, None)
    error = (shown - values)[is_lost].astype(np.float64)
    rms = float(np.sqrt(np.square(error).mean())) if len(error) else 0.0
    return {
        "frames_lost": float(is_lost.sum()),
        "share_lost": float(is_lost.mean()),
        "error_steps": rms,
    }


def small_group_cost(path: Path, out: Path, group_frames: int) -> float:
    """Return the kbit/s of motion and placement when groups are short, as a live sender needs."""
    with_motion(path, out, parse(path).motion.values, None, group_frames=group_frames)
    return file_cost(out).cached
