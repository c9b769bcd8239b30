"""Time per frame of synthesis: the plain reference, the trainable path and the prepared fast path.

One run measures all of them in turn, round after round, and keeps each one's best round, so that
the ratios hold on a busy machine too. There, `--clock processor` with one thread counts only this
process's own time:

    python -m sglat_lab.bench.synthesis --threads 1 --clock processor --out FILE.md

With `--layers` it times each layer that the fast path convolves by Winograd's scheme, with that
scheme and with a plain convolution:

    python -m sglat_lab.bench.synthesis --layers --threads 1 --clock processor --out FILE.json
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from sglat.bundles.bundle import Bundle
from sglat.decoder.synthesizer import Person, Renderer, Synthesizer
from sglat.networks.stylegan2 import Generator, StyledConv
from sglat.networks.stylegan2_fast import FastConv, FastSynthesis, profits_from_winograd
from sglat.networks.stylegan2_reference import synthesize_reference
from sglat.networks.stylespace import GeneratorConfig
from sglat_lab.report.pages import Record, page, provenance, targets, write_page

CONFIGS = {
    "128 px, embedded": GeneratorConfig.mini(),
    "256 px, config f, half width (official 256 px)": GeneratorConfig(
        resolution=256, channels=(512, 512, 512, 512, 256, 128, 64)
    ),
    "256 px, config f": GeneratorConfig.config_f(256),
    "1024 px, config f": GeneratorConfig.config_f(1024),
}


SPEED_RUNS = 30  # fewer differ by a tenth on a shared machine
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


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


def renderer_speed(bundle: Bundle, *, threads: int, batch: int) -> Record:
    """Return frames a second of the decoder's own renderer, best of several runs."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    generator = bundle.generator
    person = Person(ws=generator.repeat(generator.w_avg[None])[0], neutral=torch.zeros(34))
    renderer = Renderer(Synthesizer.of(bundle), person, workers=threads)
    motion = torch.randn(batch, 34, generator=torch.Generator().manual_seed(0))
    wall, processor = (
        best_times(
            {"": lambda: renderer.render(motion)},
            rounds=SPEED_RUNS, device=motion.device, clock=clock,
        )[""]
        for clock in CLOCKS.values()
    )  # fmt: skip
    torch.set_num_threads(before)
    return {
        "frames_per_second": round(1e3 * batch / wall, 2),
        "processor_milliseconds": round(processor / batch, 2),
        "load": round(os.getloadavg()[0], 1),
    }


@torch.inference_mode()
def measure(
    name: str,
    config: GeneratorConfig,
    *,
    device: torch.device,
    rounds: int,
    clock: Callable[[], float],
) -> Record:
    """Time one generator, one frame at a time.

    `difference` is the largest of the fast path's picture from the reference's, `largest` the
    largest value of the reference's picture.
    """
    plain = random_generator(config).to(device)
    generator = random_generator(config).to(device)
    generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
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
    times = best_times(calls, rounds=rounds, device=device, clock=clock)
    return {
        "generator": name,
        "device": device.type,
        "milliseconds": times,
        "ratio": {key: times["reference"] / value for key, value in times.items()},
        "difference": difference,
        "largest": float(expected.abs().max()),
    }


@torch.inference_mode()
def measure_layers(
    name: str, config: GeneratorConfig, *, rounds: int, clock: Callable[[], float]
) -> list[Record]:
    """Time the layers of one generator by Winograd's scheme and by plain convolution.

    `gain` is the share of the plain convolution's time that the scheme saves, `difference` the
    largest between the two results.
    """
    generator = random_generator(config)
    generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    rows = []
    for layer in generator.layers:
        if not isinstance(layer, StyledConv) or not profits_from_winograd(layer, torch.float32):
            continue
        entry = layer.entry
        side = entry.resolution // 2 if entry.kind == "conv_up" else entry.resolution
        x = torch.randn(1, entry.channels, side, side)
        x = x.contiguous(memory_format=torch.channels_last)
        style = torch.randn(1, entry.channels)

        def convolved(by: FastConv, x: Tensor = x, style: Tensor = style) -> Tensor:
            modulation = by.modulate(style, x.shape[2] * x.shape[3])
            return by.rows(x, modulation, 0, by.entry.resolution)

        tiled = FastConv(layer, torch.float32, winograd=True)
        plain = FastConv(layer, torch.float32, winograd=False)
        difference = float((convolved(tiled) - convolved(plain)).abs().max())
        calls: dict[str, Callable[[], Tensor]] = {
            "winograd": partial(convolved, tiled),
            "plain": partial(convolved, plain),
        }
        times = best_times(calls, rounds=rounds, device=torch.device("cpu"), clock=clock)
        rows.append(
            {
                "generator": name,
                "layer": entry.index,
                "kind": entry.kind,
                "resolution": entry.resolution,
                "channels": [entry.channels, entry.outputs],
                "milliseconds": times,
                "gain": 1 - times["winograd"] / times["plain"],
                "difference": difference,
            }
        )
    return rows


def main() -> None:
    """Measure, print, and write the page with its record beside it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch chooses")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--layers", action="store_true", help="Winograd's scheme layer by layer")
    parser.add_argument("--out", type=Path, help="page to write, its record beside it")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    run = provenance(
        "python -m sglat_lab.bench.synthesis",
        remark=f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}, "
        f"load average at the start {os.getloadavg()[0]:.1f}",
    )
    record: Record = {"clock": options.clock, "rounds": options.rounds, "runs": [run]}
    if options.layers:
        name, clock = "winograd", CLOCKS[options.clock]
        record["layers"] = [
            row
            for generator, config in CONFIGS.items()
            for row in measure_layers(generator, config, rounds=options.rounds, clock=clock)
        ]
    else:
        rows = [
            measure(
                generator, config, device=torch.device(device), rounds=options.rounds,
                clock=CLOCKS["wall" if device == "cuda" else options.clock],
            )
            for device in devices
            for generator, config in CONFIGS.items()
        ]  # fmt: skip
        name, record["targets"] = "synthesis", targets("synthesis")
        record["machines"] = [{"name": run["machine"], "rows": rows}]
    print(page(name, record))
    if options.out:
        write_page(options.out, record, name)


if __name__ == "__main__":
    main()
