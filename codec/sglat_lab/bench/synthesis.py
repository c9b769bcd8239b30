"""Time per frame of synthesis: the plain reference, the trainable path and the prepared fast path.

One run measures all of them in turn, round after round, and keeps each one's best round, so that
the ratios hold on a machine that is busy with other things too. There, `--clock processor` with
one thread counts only the time that the work itself took:

    python -m sglat_lab.bench.synthesis --threads 1 --clock processor --out FILE.md
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sglat.files import write_atomically
from sglat.networks.stylegan2 import Generator
from sglat.networks.stylegan2_fast import FastSynthesis
from sglat.networks.stylegan2_reference import synthesize_reference
from sglat.networks.stylespace import GeneratorConfig

CONFIGS = {
    "128 px, embedded": GeneratorConfig.mini(),
    "256 px, config f, half width (official 256 px)": GeneratorConfig.from_channel_base(
        256, channel_base=16384
    ),
    "256 px, config f": GeneratorConfig.config_f(256),
    "1024 px, config f": GeneratorConfig.config_f(1024),
}


CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One generator on one device."""

    name: str
    device: str
    milliseconds: dict[str, float]
    difference: float
    """Largest difference of the fast path's picture from the reference's."""
    largest: float
    """Largest value of the reference's picture."""


def random_generator(config: GeneratorConfig) -> Generator:
    """Return a generator with noise and biases that matter."""
    torch.manual_seed(0)
    generator = Generator(config).eval().requires_grad_(False)
    for name, parameter in generator.named_parameters():
        if name.endswith(("noise_strength", "bias")):
            parameter.normal_(std=0.1)
    return generator


def best_times(
    calls: dict[str, Callable[[], Tensor]],
    *,
    rounds: int,
    device: torch.device,
    clock: Callable[[], float],
) -> dict[str, float]:
    """Return each call's shortest time in milliseconds over interleaved rounds."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            if device.type == "cuda":
                torch.cuda.synchronize()
            start = clock()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize()
            best[name] = min(best[name], (clock() - start) * 1e3)
    return best


@torch.inference_mode()
def measure(
    name: str,
    config: GeneratorConfig,
    *,
    device: torch.device,
    rounds: int,
    clock: Callable[[], float],
) -> Row:
    """Time one generator, one frame at a time."""
    plain = random_generator(config).to(device)
    generator = random_generator(config).to(device).to(memory_format=torch.channels_last)
    fast = FastSynthesis(generator)
    ws = torch.randn(1, config.num_ws, config.style_dim, device=device)
    styles = generator.styles(ws)
    calls: dict[str, Callable[[], Tensor]] = {
        "reference": lambda: synthesize_reference(plain, styles),
        "trainable": lambda: generator.synthesize(styles),
        "fast": lambda: fast(styles),
    }
    if device.type == "cuda":
        half = FastSynthesis(generator, dtype=torch.float16)
        calls["fast, float16"] = lambda: half(styles)
    expected = calls["reference"]()
    difference = float((calls["fast"]() - expected).abs().max())
    calls["trainable"]()  # every path has run once before the clock does
    return Row(
        name=name,
        device=device.type,
        milliseconds=best_times(calls, rounds=rounds, device=device, clock=clock),
        difference=difference,
        largest=float(expected.abs().max()),
    )


def table(rows: list[Row]) -> str:
    """Return the measurements as Markdown."""
    columns = list(rows[-1].milliseconds)
    head = ["generator", "device", *(f"{name} [ms]" for name in columns)]
    head += [*(f"reference / {name}" for name in columns[1:]), "largest difference", "of values to"]
    lines = [" | ".join(head), " | ".join(["---"] * len(head))]
    for row in rows:
        times = row.milliseconds
        cells = [row.name, row.device, *(f"{times[name]:.0f}" for name in columns)]
        cells += [f"{times['reference'] / times[name]:.2f}" for name in columns[1:]]
        cells += [f"{row.difference:.1e}", f"{row.largest:.0f}"]
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def machine() -> str:
    """Return what was measured on."""
    cpu = platform.processor() or platform.machine()
    capability = torch.backends.cpu.get_cpu_capability()
    load = os.getloadavg()[0]
    text = (
        f"{os.cpu_count()}-core {cpu} ({capability}), {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, load average at the start {load:.1f}"
    )
    if torch.cuda.is_available():
        text += f", {torch.cuda.get_device_name()}"
    return text


def commit() -> str:
    """Return the short hash of the code measured, or `unknown` outside a checkout."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    )
    return done.stdout.strip() or "unknown"


def main() -> None:
    """Measure, print, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch chooses")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    state, code = machine(), commit()
    rows = [
        measure(
            name,
            config,
            device=torch.device(device),
            rounds=options.rounds,
            clock=CLOCKS["wall" if device == "cuda" else options.clock],
        )
        for device in devices
        for name, config in CONFIGS.items()
    ]
    command = f"python -m sglat_lab.bench.synthesis --rounds {options.rounds}"
    if options.threads:
        command += f" --threads {options.threads}"
    if options.clock != "wall":
        command += f" --clock {options.clock}"
    report = (
        "# Synthesis time per frame\n\n"
        "One frame at a time, float32, random weights, StyleSpace vectors to picture; "
        f"{options.clock} time, best of {options.rounds} interleaved rounds in one "
        "run. Aim: reference / fast of at least 2.\n\n"
        f"{table(rows)}\n\nMachine: {state}. Commit {code}. Command: `{command}`.\n"
    )
    print(report)
    if options.out:
        write_atomically(options.out, report)


if __name__ == "__main__":
    main()
