"""The encoder killed at random moments: does it end with the bytes of an undisturbed run?"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from sglat_lab.bench.file_variants import shortened

PIECE_SECONDS = 1.0
TUNE_STEPS = 15
LEAST_SECONDS = 3.0  # before a kill; earlier nothing but imports has happened


def check_resume(clip: Path, folder: Path, *, kills: int = 5, threads: int = 1) -> dict[str, Any]:
    """Encode a piece of a clip undisturbed and with kills, and compare.

    Args:
        clip: a video; its first second is used.
        folder: where the files go.
        kills: how many.
        threads: of the encoder.

    Returns:
        `kills` that met a running encoder, the seconds after which each came, `is_same`.
    """
    folder.mkdir(exist_ok=True)
    piece = shortened(clip, folder / f"piece{clip.suffix}", PIECE_SECONDS)
    whole, cut = folder / "whole.sglat", folder / "cut.sglat"

    def start(target: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "sglat.cli.encode", str(piece), str(target), "--quiet",
                   "--tune-steps", str(TUNE_STEPS), "--threads", str(threads),
                   "--no-self-check"]  # fmt: skip
        return subprocess.Popen(command, stderr=subprocess.DEVNULL)

    whole.unlink(missing_ok=True)
    cut.unlink(missing_ok=True)
    began = time.monotonic()
    if start(whole).wait() != 0:
        raise SystemExit(f"expected {piece} to be encoded, the encoder failed")
    span = time.monotonic() - began
    moments = random.Random(0)
    waits: list[float] = []
    for _ in range(kills):
        wait = moments.uniform(LEAST_SECONDS, LEAST_SECONDS + span / 2)
        process = start(cut)
        try:
            process.wait(timeout=wait)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            waits.append(round(wait, 1))
        if cut.exists():
            break
    if not cut.exists():
        start(cut).wait()
    return {
        "kills": len(waits),
        "seconds": waits,
        "undisturbed_seconds": round(span, 1),
        "is_same": whole.read_bytes() == cut.read_bytes(),
    }
