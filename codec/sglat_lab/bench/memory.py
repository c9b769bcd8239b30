"""Peak memory of decoding against the length of the clip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sglat_lab.bench.file_variants import parse, repeated
from sglat_lab.bench.speed import decode_speed


def decode_memory(
    path: Path, bundle: str, lengths: Sequence[int], scratch: Path
) -> list[dict[str, Any]]:
    """Return peak memory and speed of decoding files of other lengths.

    Args:
        path: a file; its motion is played over and over to reach each length.
        bundle: name or folder of the weights.
        lengths: in frames.
        scratch: folder for those files.
    """
    values = parse(path).motion.values
    found = []
    for length in lengths:
        rows = np.resize(np.arange(len(values)), length)
        long = repeated(path, scratch / f"long{length}.sglat", rows)
        record = decode_speed(long, bundle, with_ratio=False)
        long.unlink()
        found.append(
            {key: record[key] for key in ("frames", "peak_memory_megabytes", "frames_per_second")}
        )
    return found
