"""Decoding speed in a fresh process: `python -m sglat_lab.bench.speed FILE BUNDLE`."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sglat.bundles.bundle import Bundle


def decode_speed(
    path: Path, bundle: str, *, device: str = "cpu", with_ratio: bool = True
) -> dict[str, Any]:
    """Return start-up, frames a second and peak memory of decoding in a fresh interpreter.

    Args:
        path: the file.
        bundle: name or folder of the weights.
        device: as `DecodeConfig.device`.
        with_ratio: also time the plain generator.
    """
    began = time.perf_counter()
    arguments = [str(path), bundle, device, "ratio" if with_ratio else "plain"]
    done = subprocess.run(
        [sys.executable, "-m", "sglat_lab.bench.speed", *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
    )
    record: dict[str, Any] = json.loads(done.stdout)
    return {**record, "process_seconds": time.perf_counter() - began}


def peak_memory_megabytes() -> float:
    """Return this process's peak resident memory.

    Linux's own record of the address space; `getrusage` would also show what the parent had in
    memory when it started us.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def reference_ratio(bundle: Bundle, *, batch: int = 8, runs: int = 3) -> float:
    """Return how many times faster the decoder renders than the plain generator, in one process.

    The two take turns, and the least time of each counts.
    """
    import torch

    from sglat.networks.stylegan2_fast import FastSynthesis

    generator = bundle.generator
    ws = generator.repeat(generator.w_avg.expand(batch, -1))
    with torch.inference_mode():
        styles = generator.styles(ws)
        fast = FastSynthesis(generator)
        times: dict[str, list[float]] = {"fast": [], "plain": []}
        for _ in range(runs + 1):
            for name, render in (("fast", fast), ("plain", generator.synthesize)):
                began = time.perf_counter()
                render(styles)
                times[name].append(time.perf_counter() - began)
    return min(times["plain"][1:]) / min(times["fast"][1:])


def _main(path: str, bundle_name: str, device: str, wanted: str) -> None:
    began = time.perf_counter()
    import torch

    from sglat.bundles.bundle import load_bundle
    from sglat.decoder.decode import DecodeConfig, Decoder

    imported = time.perf_counter()
    bundle = load_bundle(bundle_name, device)
    loaded = time.perf_counter()
    frames = 0
    first = loaded
    with Path(path).open("rb") as file:
        decoder = Decoder(file, bundle=bundle, config=DecodeConfig(device=device))
        for _ in decoder.frames():
            frames += 1
            if frames == 1:
                first = time.perf_counter()
    ended = time.perf_counter()
    batch = DecodeConfig().batch
    rest = max(0, frames - batch)  # the first batch arrives whole with the first frame
    print(
        json.dumps(
            {
                "frames": frames,
                "import_seconds": imported - began,
                "load_seconds": loaded - imported,
                "first_frame_seconds": first - loaded,
                "frames_per_second": rest / (ended - first) if rest else None,
                "peak_memory_megabytes": peak_memory_megabytes(),
                "reference_ratio": reference_ratio(bundle) if wanted == "ratio" else None,
                "threads": torch.get_num_threads(),
                "device": device,
            }
        )
    )


if __name__ == "__main__":
    _main(*sys.argv[1:5])
