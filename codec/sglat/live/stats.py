"""Figures of a call: latency by stage, rate on the wire, what was lost."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from sglat.files import write_atomically

MOST_SAMPLES: Final = 20_000  # of a stage; every second one is dropped beyond: memory is bounded


@dataclass
class Stages:
    """Durations by stage, in seconds."""

    _samples: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _every: dict[str, int] = field(default_factory=lambda: defaultdict(lambda: 1))
    _seen: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, stage: str, seconds: float) -> None:
        """Take one duration."""
        self._seen[stage] += 1
        if self._seen[stage] % self._every[stage]:
            return
        samples = self._samples[stage]
        samples.append(seconds)
        if len(samples) >= MOST_SAMPLES:
            self._samples[stage] = samples[::2]
            self._every[stage] *= 2

    def summary(self) -> dict[str, dict[str, float]]:
        """Return count, and milliseconds of the median, the 95th percentile and the longest."""
        return {
            stage: {
                "count": self._seen[stage],
                "p50_ms": round(1000 * float(np.percentile(samples, 50)), 2),
                "p95_ms": round(1000 * float(np.percentile(samples, 95)), 2),
                "max_ms": round(1000 * max(samples), 2),
            }
            for stage, samples in self._samples.items()
            if samples
        }


def kbit_per_second(size_bytes: int, seconds: float) -> float:
    """Return a rate; 0 for no time."""
    return round(8 * size_bytes / 1000 / seconds, 3) if seconds > 0 else 0.0


def write_stats(path: Path, figures: dict[str, Any]) -> None:
    """Write figures as JSON."""
    write_atomically(path, json.dumps(figures, indent=1) + "\n")
