"""Decoding in a fresh process: speed, and memory against length.

    python -m sglat_lab.bench.long_decode FILE.sglat [--minutes 1 3 10] [--threads N] [--video]

repeats the file to each length by the format's own edits, without any network, and decodes each in
a process of its own. Pictures are dropped, or with --video written to an MP4 that is deleted.
Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sglat.bundles.bundle import Bundle

Record = dict[str, Any]


def decode_apart(
    path: Path,
    *,
    bundle: str = "mini",
    device: str = "cpu",
    threads: int | None = None,
    is_video: bool = False,
    with_ratio: bool = False,
    size: int | None = None,
) -> Record:
    """Return start-up, frames a second and peak memory of decoding in a fresh interpreter.

    Args:
        path: the file.
        bundle: name or folder of the weights.
        device: as `DecodeConfig.device`.
        threads: of torch; None: its own choice.
        is_video: write crops and sound into an MP4 in a temporary folder.
        with_ratio: also time the plain generator.
        size: side of the pictures in pixels; None: the bundle's lowest rung.
    """
    options = {"path": str(path), "bundle": bundle, "device": device, "threads": threads,
               "is_video": is_video, "with_ratio": with_ratio, "size": size}  # fmt: skip
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "sglat_lab.bench.long_decode", "--child", json.dumps(options)],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
    )
    record: Record = json.loads(done.stdout.splitlines()[-1])
    return {**record, "process_seconds": time.perf_counter() - began}


def decode_memory(
    path: Path, bundle: str, lengths: Sequence[int], scratch: Path, **options: Any
) -> list[Record]:
    """Return peak memory and speed of decoding files of other lengths.

    Args:
        path: a file of constant frame rate; it is repeated to each length.
        bundle: name or folder of the weights.
        lengths: in frames, at least.
        scratch: folder for those files.
        options: of `decode_apart`.
    """
    from sglat_lab.bench.file_variants import looped

    found = []
    for length in lengths:
        long = scratch / "long.sglat"
        looped(path, long, length)
        size, load = long.stat().st_size, os.getloadavg()[0]
        record = decode_apart(long, bundle=bundle, **options)
        found.append(record | {"file_bytes": size, "load": round(load, 1)})
        long.unlink()
    return found


def reference_ratio(bundle: Bundle) -> float:
    """Return how many times faster the decoder renders than the plain generator, in one process."""
    import torch

    from sglat.networks.stylegan2_fast import FastSynthesis
    from sglat_lab.bench.synthesis import best_times

    generator = bundle.generator
    ws = generator.repeat(generator.w_avg.expand(8, -1))
    with torch.inference_mode():
        styles, fast = generator.styles(ws), FastSynthesis(generator)
        calls = {"fast": lambda: fast(styles), "plain": lambda: generator.synthesize(styles)}
        times = best_times(calls, rounds=4, device=ws.device, clock=time.perf_counter)
    return times["plain"] / times["fast"]


def decode_here(options: Record) -> Record:
    """Decode a file in this process; options as `decode_apart`."""
    began = time.perf_counter()
    import torch

    from sglat.bundles.bundle import load_bundle
    from sglat.decoder.decode import DecodeConfig, Decoder
    from sglat.decoder.output import OutputConfig, write_decoded
    from sglat_lab.bench.harness import peak_memory_megabytes

    if options["threads"]:
        torch.set_num_threads(options["threads"])
    imported = time.perf_counter()
    bundle = load_bundle(options["bundle"], options["device"])
    loaded = time.perf_counter()
    first = None
    frames = 0

    def note(done: int, _: int | None) -> None:
        nonlocal first
        first = first or time.perf_counter()

    with Path(options["path"]).open("rb") as file, TemporaryDirectory() as folder:
        config = DecodeConfig(device=options["device"], size=options["size"] or bundle.resolution)
        decoder = Decoder(file, bundle=bundle, config=config)
        if options["is_video"]:
            target = Path(folder) / "out.mp4"
            output = OutputConfig(
                path=target, crop_only=True, has_watermark=False, encoder="libx264"
            )
            frames = write_decoded(decoder, output, progress=note).frames
        else:
            for frame in decoder.frames():
                frames = frame.index + 1
                note(frames, None)
        ended = time.perf_counter()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    rest = max(0, frames - config.batch)  # the first batch arrives whole with the first frame
    first = first or ended
    return {
        "frames": frames,
        "import_seconds": imported - began,
        "load_seconds": loaded - imported,
        "first_frame_seconds": first - loaded,
        "frames_per_second": rest / (ended - first) if rest else None,
        "frames_per_second_with_start": frames / (ended - imported),
        "processor_ms_per_frame": 1000 * (usage.ru_utime + usage.ru_stime) / max(1, frames),
        "peak_memory_megabytes": peak_memory_megabytes(),
        "reference_ratio": reference_ratio(bundle) if options["with_ratio"] else None,
        "threads": torch.get_num_threads(),
        "device": options["device"],
        "size": config.size,
    }


def main() -> None:
    """Repeat, decode, print."""
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(decode_here(json.loads(sys.argv[2]))))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 3, 10])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--video", action="store_true", help="write H.264 instead of nothing")
    args = parser.parse_args()
    from sglat_lab.report.pages import part

    runs = measure(args.file, args.minutes, threads=args.threads, is_video=args.video)
    print(part("long_decode", runs=runs))


def measure(
    path: Path, minutes: Sequence[float], *, threads: int, is_video: bool, bundle: str = "mini"
) -> list[Record]:
    """Return one record for each length in minutes, each decoded in a fresh process."""
    from sglat_lab.bench.file_variants import parse

    rate = parse(path).rate
    lengths = [round(60 * one * rate) for one in minutes]
    with TemporaryDirectory() as folder:
        runs = decode_memory(
            path, bundle, lengths, Path(folder), threads=threads, is_video=is_video
        )
    return [run | {"minutes": one} for run, one in zip(runs, minutes, strict=True)]


if __name__ == "__main__":
    main()
