"""`sgl-bench`: rate, quality, loss and speed against other codecs, in one command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from sglat.cli.common import run, say
from sglat.errors import UsageError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def bench_command(
    clips: Annotated[Path, typer.Argument(help="Folder of videos, one face each.")],
    out: Annotated[
        Path, typer.Option(help="Folder of the report; a repeated run goes on from what is there.")
    ],
    encoded: Annotated[
        Path | None, typer.Option(help="Folder with <clip>.sglat made earlier; default: encode.")
    ] = None,
    bundle: Annotated[str, typer.Option(help="Name or folder of the weights.")] = "mini",
    teachers: Annotated[
        Path | None,
        typer.Option(help="Folder of measuring networks; default: $SGLAT_SHARED/teachers."),
    ] = None,
    lpips_heads: Annotated[
        Path | None, typer.Option(help="squeeze.pth of the lpips package, if it is not installed.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer frames, points and steps of tuning.")
    ] = False,
    frames: Annotated[
        int | None,
        typer.Option(min=2, help="Most frames of each clip; default: as time allows, 150 at most."),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help="Time to plan for; default: 28, quick 4.5.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes side by side; default: one a core.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "cpu",
    openface: Annotated[
        Path | None,
        typer.Option(
            help="Folder with OpenFace's <clip>.csv of each source and <clip>.sglat.csv of its "
            "decoded file."
        ),
    ] = None,
    probes: Annotated[
        str,
        typer.Option(
            help="Probes beside quality, comma-separated: rates, loss, damage, swap, solvers, "
            "speed, frechet, published; default: all."
        ),
    ] = "",
    speed: Annotated[
        bool, typer.Option("--speed/--no-speed", help="Measure decoding in fresh processes.")
    ] = True,
) -> None:
    """Measure every clip of a folder and write report.html, results.json, .csv and .md."""
    _quiet_libraries()
    from sglat.networks.devices import choose_device
    from sglat_lab.bench.harness import BenchConfig
    from sglat_lab.bench.run import Benchmark
    from sglat_lab.report.html import write_report

    for folder in (clips, encoded, teachers, openface):
        if folder is not None and not folder.is_dir():
            raise UsageError("no-folder", f"expected a folder {folder}, found none")
    if lpips_heads is not None and not lpips_heads.is_file():
        raise UsageError("no-file", f"expected a file {lpips_heads}, found none")
    out.mkdir(parents=True, exist_ok=True)
    benchmark = Benchmark(
        BenchConfig(
            clips=clips, out=out, encoded=encoded, bundle=bundle, teachers=teachers,
            heads=lpips_heads, is_quick=quick, device=str(choose_device(device)),
            with_speed=speed, frames=frames, minutes=minutes, workers=workers, openface=openface,
            probes=tuple(name for name in probes.split(",") if name),
        ),
        say,
    )  # fmt: skip
    try:
        record = benchmark.run()
        say("writing the report")
        for path in write_report(record, benchmark.pictures(record), out):
            print(path)
    finally:
        benchmark.close()


def _quiet_libraries() -> None:
    """Keep log lines of the measured codecs and networks off the terminal."""
    os.environ.setdefault("SVT_LOG", "1")  # errors only
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def main() -> None:
    """Run the command."""
    run(app)


if __name__ == "__main__":
    main()
