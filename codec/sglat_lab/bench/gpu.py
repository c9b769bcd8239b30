"""What a machine with a GPU does: decoding by resolution, encoding by stage, solvers, memory.

    python -m sglat_lab.bench gpu CLIP --out FILE.json

Within `--minutes` it measures part by part, the most telling first, and writes the record after
each, so that a run that is ended keeps what it has. What there was no time for is named.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

import torch
from torch import Tensor

from sglat.bundles.bundle import Bundle, load_bundle
from sglat.decoder.synthesizer import Person, Renderer, Synthesizer
from sglat.encoder.config import EncodeConfig
from sglat.encoder.encode import encode
from sglat.errors import SglatError
from sglat.files import write_atomically
from sglat.networks.devices import choose_device
from sglat.networks.pixels import to_pixels
from sglat.networks.stylegan2_fast import FastSynthesis
from sglat.networks.stylespace import GeneratorConfig
from sglat_lab.bench.harness import peak_memory_megabytes
from sglat_lab.bench.synthesis import random_generator
from sglat_lab.report.pages import Record, provenance

BATCHES: Final = (1, 8, 32)
ROUNDS: Final = 10
LARGE: Final = GeneratorConfig.config_f(1024)
Scheme = Literal["eager", "graph", "compiled"]


@dataclass(frozen=True, kw_only=True)
class GpuConfig:
    """What is measured."""

    clip: Path
    bundle: str = "mini"
    device: str = "auto"
    minutes: float = 10.0
    frames_seconds: float = 2.0
    """Length of the encoded piece."""
    tune_steps: int | None = None
    """None: the preset's own."""
    large: GeneratorConfig = LARGE
    """Of random weights, for the size that the bundle does not have."""
    batches: tuple[int, ...] = BATCHES
    rounds: int = ROUNDS


def milliseconds(call: Callable[[], Tensor], device: torch.device, rounds: int) -> float:
    """Return the time of a call, the mean of some after a first, until its result is there."""
    wait = torch.cuda.synchronize if device.type == "cuda" else _nothing
    call()
    wait()
    began = time.perf_counter()
    for _ in range(rounds):
        call()
    wait()
    return (time.perf_counter() - began) * 1e3 / rounds


def _nothing() -> None:
    """Wait for nothing: a processor is done when a call returns."""


def captured(call: Callable[[Tensor], Tensor], example: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a call as one CUDA graph for inputs of the example's shape; its output is reused."""
    still = example.clone()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call(still)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call(still)

    def replay(motion: Tensor) -> Tensor:
        still.copy_(motion)
        graph.replay()
        return result

    return replay


class Memory:
    """The most memory that a part takes, in MB: of the GPU, or else of this process so far."""

    def __init__(self, device: torch.device) -> None:
        self.is_gpu = device.type == "cuda"
        if self.is_gpu:
            torch.cuda.reset_peak_memory_stats(device)

    def megabytes(self) -> float:
        """Return the peak since the start."""
        most = torch.cuda.max_memory_allocated() / 1e6 if self.is_gpu else peak_memory_megabytes()
        return round(most, 1)


@torch.inference_mode()
def decode_record(
    call: Callable[[Tensor], Tensor], device: torch.device, config: GpuConfig, scheme: Scheme
) -> Record:
    """Return the time of motion to pictures of 8 bits in the machine's memory, by batch."""
    memory, rows = Memory(device), {}
    for batch in config.batches:
        motion = torch.randn(batch, 34, generator=torch.Generator().manual_seed(0)).to(device)
        render = call
        if scheme == "graph":
            render = captured(call, motion)
        elif scheme == "compiled":
            render = torch.compile(call)

        def shown(render: Callable[[Tensor], Tensor] = render, motion: Tensor = motion) -> Tensor:
            return torch.from_numpy(to_pixels(render(motion)))

        spent = milliseconds(shown, device, config.rounds)
        rows[str(batch)] = {
            "milliseconds_a_frame": round(spent / batch, 3),
            "frames_per_second": round(1e3 * batch / spent, 1),
        }
    return {"scheme": scheme, "batch": rows, "megabytes": memory.megabytes()}


def rung_call(bundle: Bundle, resolution: int, *, half: bool) -> Callable[[Tensor], Tensor]:
    """Return the decoder's own rendering of the mean person at a rung."""
    whole = Synthesizer.of(bundle)
    generator = bundle.generator
    person = Person(
        ws=generator.repeat(generator.w_avg[None])[0],
        neutral=torch.zeros(34, device=bundle.device),
    )
    return Renderer(whole.up_to(resolution), person, half=half, workers=1).render


def large_call(
    config: GeneratorConfig, device: torch.device, *, half: bool
) -> Callable[[Tensor], Tensor]:
    """Return the rendering of a generator of random weights, styles of its own per frame."""
    generator = random_generator(config).to(device)
    narrow = torch.float16 if device.type == "cuda" else torch.bfloat16
    fast = FastSynthesis(generator, dtype=narrow if half else torch.float32)
    latent = generator.repeat(generator.w_avg[None])

    def call(motion: Tensor) -> Tensor:
        pictures: Tensor = fast(generator.styles(latent.expand(len(motion), -1, -1)))
        return pictures.clamp(-1, 1)

    return call


def encode_record(config: GpuConfig, device: torch.device, folder: Path, **chosen: Any) -> Record:
    """Return seconds by stage and the memory of one encoding of the clip's beginning."""
    memory, began = Memory(device), time.perf_counter()
    name = "-".join(str(value) for value in chosen.values())
    result = encode(
        config.clip,
        folder / f"{name}.sglat",
        EncodeConfig(
            bundle=config.bundle, device=str(device), end_seconds=config.frames_seconds,
            tune_steps=config.tune_steps, self_check=False, force=True, **chosen,
        ),
    )  # fmt: skip
    return {
        "frames": result.frames,
        "seconds": round(time.perf_counter() - began, 2),
        "stage_seconds": {key: round(took, 3) for key, took in result.stage_seconds.items()},
        "megabytes": memory.megabytes(),
    }


def parts(
    config: GpuConfig, bundle: Bundle, folder: Path
) -> Iterator[tuple[str, Callable[[], Record]]]:
    """Yield the parts of the measurement by name, the most telling first."""
    device = bundle.device
    schemes: tuple[Scheme, ...] = (
        ("eager", "graph", "compiled") if device.type == "cuda" else ("eager",)
    )
    for half in (True, False):
        kind = "16 bit" if half else "float32"
        for scheme in schemes if half else schemes[:1]:
            for rung in bundle.rungs:
                yield (
                    f"decode {rung} px, {kind}, {scheme}",
                    lambda rung=rung, half=half, scheme=scheme: decode_record(  # type: ignore[misc]
                        rung_call(bundle, rung, half=half), device, config, scheme
                    ),
                )
            yield (
                f"decode {config.large.resolution} px of random weights, {kind}, {scheme}",
                lambda half=half, scheme=scheme: decode_record(  # type: ignore[misc]
                    large_call(config.large, device, half=half), device, config, scheme
                ),
            )
        if half:
            for resolution in bundle.rungs:
                yield (
                    f"encode at {resolution} px",
                    lambda size=resolution: encode_record(  # type: ignore[misc]
                        config, device, folder, resolution=size
                    ),
                )
            yield (
                "encode by the paper's solver",
                lambda: encode_record(
                    config, device, folder, resolution=bundle.rungs[0], solver="paper"
                ),
            )


def measure(config: GpuConfig, out: Path) -> Record:
    """Measure part by part until the time is up, and write the record after each.

    Args:
        config: what is measured.
        out: JSON file, replaced.

    Returns:
        Parts by name; one that failed has its message, one without time is named in `left_out`.
    """
    began, device = time.monotonic(), choose_device(config.device)
    bundle = load_bundle(config.bundle, device=device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "processor"
    record: Record = {
        "device": {"type": device.type, "name": name},
        "parts": {},
        "left_out": [],
        "runs": [provenance("python -m sglat_lab.bench gpu", threads=torch.get_num_threads())],
    }
    with TemporaryDirectory() as folder:
        for part, run in parts(config, bundle, Path(folder)):
            if time.monotonic() - began > 60 * config.minutes:
                record["left_out"].append(part)
                continue
            try:
                record["parts"][part] = run()
            except (SglatError, RuntimeError) as error:  # out of memory, or no compiler
                record["parts"][part] = {"error": str(error).splitlines()[0]}
            record["seconds"] = round(time.monotonic() - began, 1)
            write_atomically(out, json.dumps(record, indent=1) + "\n")
            print(f"{part}: {json.dumps(record['parts'][part])}", flush=True)
    write_atomically(out, json.dumps(record, indent=1) + "\n")
    return record


def main() -> None:
    """Measure this machine."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("clip", type=Path, help="video of one person")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--bundle", default=GpuConfig.bundle)
    parser.add_argument("--device", default=GpuConfig.device)
    parser.add_argument("--minutes", type=float, default=GpuConfig.minutes)
    parser.add_argument("--seconds", type=float, default=GpuConfig.frames_seconds)
    parser.add_argument("--tune-steps", type=int)
    args = parser.parse_args()
    measure(
        GpuConfig(
            clip=args.clip, bundle=args.bundle, device=args.device, minutes=args.minutes,
            frames_seconds=args.seconds, tune_steps=args.tune_steps,
        ),
        args.out,
    )  # fmt: skip


if __name__ == "__main__":
    main()
